import json
import shutil

import pytest

from experiments.records import METRICS, Finished, read_records


def test_records_come_back_by_row_and_seed(small_runs):
    records = read_records(small_runs)
    assert [(record.row, record.seed) for record in records] == [
        *(("learned", seed) for seed in (1, 2, 3)),
        *(("none", seed) for seed in (1, 2, 3)),
        *(("standard_0.2", seed) for seed in (1, 2, 3)),
    ]
    assert [record.metric("val") for record in records[:2]] == [3.95, 3.99]
    assert (records[2].status, isinstance(records[2], Finished)) == ("failed", False)


def test_one_window_has_no_standard_error(write, make_record, tmp_path):
    write(make_record("none", 1, 4.0, 2.6, **{"metrics__val/loss_stderr": None}))
    (record,) = read_records(tmp_path / "runs")
    assert isinstance(record, Finished)
    assert record.metric("val_stderr") is None


def test_every_number_of_the_table_is_found_in_a_record(write, make_record, tmp_path):
    write(
        make_record(
            "none",
            1,
            4.0,
            2.6,
            **{
                "metrics__train/ones": 0.5,
                "metrics__eval/ones": 0.4,
                "metrics__val/ema_loss_nats": 3.9,
                "test__final__test/ema_loss_nats": 3.8,
                "masks": {"val": {"own": 4.0, "other": 4.1, "mean": 4.2, "random": 4.3}},
            },
        )
    )
    (record,) = read_records(tmp_path / "runs")
    found = {name for name in METRICS if record.metric(name) is not None}
    assert found == METRICS.keys() - {"memory_bytes"}  # null in this record


def test_run_directories_serve_as_well(write, make_record, tmp_path):
    path = write(make_record("none", 7, 4.0, 2.6))
    folder = path.parent / "seed7-0123abcd"
    folder.mkdir()
    path.rename(folder / "record.json")
    (record,) = read_records(tmp_path / "runs")
    assert (record.name, record.seed) == ("none/seed7-0123abcd/record.json", 7)


def test_two_runs_of_one_row_and_seed_are_refused(write, make_record, tmp_path):
    path = write(make_record("none", 7, 4.0, 2.6))
    folder = path.parent / "seed7-0123abcd"
    folder.mkdir()
    shutil.copy(path, folder / "record.json")
    with pytest.raises(ValueError, match=r"record\.json and none/seed7\.json are both row 'none'"):
        read_records(tmp_path / "runs")


def _break(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00\x01", '"none"', "null"])
def test_what_is_not_a_json_object_is_named(write, make_record, tmp_path, text):
    path = write(make_record("none", 1, 4.0, 2.6))
    _break(path, text)
    with pytest.raises(ValueError, match=r"none/seed1\.json: "):
        read_records(tmp_path / "runs")


@pytest.mark.parametrize(
    "entry",
    [
        "row",
        "seed",
        "config",
        "error",
        "overrides",
        "code.files",
        "starts",
        "data.tokenizer.sha256",
        "device.kind",
        "metrics.val/loss_nats",
        "best.step",
        "parameters",
        "curve",
    ],
)
def test_a_missing_entry_is_named(write, make_record, tmp_path, entry):
    record = make_record("none", 1, 4.0, 2.6)
    path = write(record)
    *parents, last = entry.split(".")
    holder = record
    for parent in parents:
        holder = holder[parent]
    del holder[last]
    _break(path, record)
    with pytest.raises(ValueError, match=rf"none/seed1\.json: `{entry}` is missing"):
        read_records(tmp_path / "runs")


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("seed", "1", "`seed` is a string, it must be an integer"),
        ("seed", True, "`seed` is true or false, it must be an integer"),
        ("parameters", "many", "`parameters` is a string, it must be an integer"),
        ("metrics__val/loss_nats", None, "is null, it must be a number"),
        ("metrics__val/loss_nats", float("nan"), "must be finite"),
        ("metrics__train/loss_nats", float("inf"), "must be finite"),
        ("code__dirty", "no", "`code.dirty` is a string, it must be true or false"),
        ("curve", [3], r"`curve\[0\]` is an integer, it must be an object"),
        ("curve", [{"step": 1}], r"`curve\[0\].val/loss_nats` is missing: a point must"),
        ("status", "done", "status='done' must be one of"),
        ("schema", 1, "schema=1 must be 2"),
        ("schema", True, "schema=True must be 2"),
        ("metrics__val/loss_nats", 1e308, "1e.308 must be less than or equal to"),
        ("row", "<b>", "row='<b>' must be 1 to 100 letters"),
        ("code__files", {"a.py": 3}, r"`code.files.a\.py` is an integer, it must be a string"),
    ],
)
def test_a_wrong_type_or_value_is_named(write, make_record, tmp_path, entry, value, said):
    path = write(make_record("none", 1, 4.0, 2.6))
    _break(path, make_record("none", 1, 4.0, 2.6, **{entry: value}))
    with pytest.raises(ValueError, match=rf"none/seed1\.json: .*{said}"):
        read_records(tmp_path / "runs")


def test_a_record_in_the_wrong_place_is_named(write, make_record, tmp_path):
    path = write(make_record("none", 1, 4.0, 2.6))
    path.rename(path.parent / "seed2.json")
    with pytest.raises(ValueError, match=r"seed2\.json: the record says row='none', seed=1"):
        read_records(tmp_path / "runs")


def test_a_run_that_did_not_finish_needs_no_numbers(write, make_record, tmp_path):
    for seed, status in enumerate(("failed", "interrupted", "running")):
        write(make_record("none", seed, 0, 0, status=status, metrics=None, best=None, data=None))
    assert len(read_records(tmp_path / "runs")) == 3
