import pytest

from experiments.mixing import (
    IDENTITY,
    changes_on_the_way,
    check_comparable,
    common_code,
    config_differences,
)
from experiments.records import read_records

OTHER = {
    "data.fingerprint": "0dd",
    "data.files": {"train": "0dd"},
    "data.tokenizer.sha256": "0dd",
    "scale": "small",
    "dtype": "float32",
    "device.kind": "cuda",
}


@pytest.fixture
def records(write, make_record, tmp_path):
    """Read back records made of (row, seed, changes)."""

    def read(*runs):
        for row, seed, changes in runs:
            write(make_record(row, seed, 4.0, 2.6, **changes))
        return read_records(tmp_path / "runs")

    return read


def test_records_that_agree_pass(records):
    check_comparable(records(("none", 1, {}), ("none", 2, {}), ("learned", 1, {})), "nano")


@pytest.mark.parametrize(("what", "path"), IDENTITY.items())
def test_a_difference_is_refused_with_its_name_its_values_and_its_records(records, what, path):
    entry = "config__scale" if path == "scale" else path.replace(".", "__")
    changes = {entry: OTHER[path]}
    mixed = records(("none", 1, {}), ("none", 2, {}), ("learned", 1, changes))
    with pytest.raises(ValueError, match="cannot share a table") as caught:
        check_comparable(mixed)
    message = str(caught.value)
    assert f"differ in their {what} (`{path}`)" in message
    assert "none/seed1.json, none/seed2.json; " in message
    assert message.index("learned/seed1.json") > message.index("none/seed2.json")
    assert "\n" not in message


def test_runs_that_did_not_finish_cannot_spoil_a_table(records):
    failed = {"status": "failed", "dtype": "float32"}
    check_comparable(records(("none", 1, {}), ("learned", 1, failed)))


def test_seeds_of_one_row_must_agree_in_their_settings(records):
    mixed = records(("none", 1, {}), ("none", 2, {"config__optimizer": {"lr": 1e-3}}))
    with pytest.raises(
        ValueError, match=r"row 'none' differ in `optimizer.lr`.*0.001 in none/seed2"
    ):
        check_comparable(mixed)


def test_settings_that_change_no_number_may_differ(records):
    changes = {
        "config__tracker": {"mode": "offline"},
        "config__fresh": True,
        "config__log_every": 7,
    }
    changes["config__data"] = {"num_proc": 3, "cache_dir": "/elsewhere"}
    check_comparable(records(("none", 1, {}), ("none", 2, changes)))


def test_rows_may_differ_in_settings_and_the_difference_is_known(records):
    mixed = records(("none", 1, {}), ("learned", 1, {"config__optimizer": {"lr": 1e-3}}))
    check_comparable(mixed)
    found = dict(config_differences(mixed))
    assert found.keys() == {"dropout.name", "optimizer.lr"}
    assert {value: [r.row for r in who] for value, who in found["optimizer.lr"].items()} == {
        "0.001": ["learned"],
        "0.002": ["none"],
    }


def test_a_table_of_one_scale_refuses_another(records):
    with pytest.raises(ValueError, match=r"scale='nano' must be 'small' in this table"):
        check_comparable(records(("none", 1, {})), "small")


def test_a_long_list_of_records_is_cut_short(records):
    many = records(*(("none", seed, {}) for seed in range(9)), ("odd", 1, {"dtype": "float32"}))
    with pytest.raises(ValueError, match=r"none/seed3\.json and 5 more; \"float32\" in odd/seed1"):
        check_comparable(many)


@pytest.mark.parametrize(("seeds", "more"), [(4, ""), (5, " and 1 more")])
def test_four_records_are_named_and_the_rest_counted(records, seeds, more):
    many = records(*(("none", n, {}) for n in range(seeds)), ("odd", 1, {"dtype": "float32"}))
    with pytest.raises(ValueError, match=rf"none/seed3\.json{more}; \"float32\" in odd"):
        check_comparable(many)


@pytest.mark.parametrize(
    ("length", "shown"), [(80, '"' + "a" * 78 + '" in'), (81, '"' + "a" * 76 + "... in")]
)
def test_a_long_value_is_cut_to_eighty_characters(records, length, shown):
    value = "a" * (length - 2)  # in quotes
    with pytest.raises(ValueError, match="share a table") as caught:
        check_comparable(records(("none", 1, {}), ("odd", 1, {"data__fingerprint": value})))
    assert shown in str(caught.value)


def test_a_value_is_the_same_in_whatever_order_its_entries_stand(records):
    files = {"train": "aa", "val": "bb"}
    turned = dict(reversed(files.items()))
    check_comparable(
        records(("none", 1, {"data__files": files}), ("odd", 1, {"data__files": turned}))
    )


FILES = {"train.py": "aa", "model/gpt.py": "bb"}


def test_a_file_that_one_row_alone_used_is_its_own(records):
    shared = {"code__files": {**FILES, "dropout/shared.py": "cc"}}
    mixed = records(("none", 1, {"code__files": FILES}), ("shared", 1, shared))
    check_comparable(mixed)
    assert common_code(mixed) == common_code(mixed[:1])


def test_a_file_that_two_runs_used_must_be_one_and_the_same(records):
    learned = {**FILES, "dropout/learned.py": "cc"}
    mixed = records(
        ("none", 1, {"code__files": FILES}),
        ("learned", 1, {"code__files": learned}),
        ("learned", 2, {"code__files": {**learned, "dropout/learned.py": "dd"}}),
    )
    with pytest.raises(ValueError, match="computes different things") as caught:
        check_comparable(mixed)
    assert "`dropout/learned.py`" in str(caught.value)
    assert '"cc" in learned/seed1.json; "dd" in learned/seed2.json' in str(caught.value)
    assert "none" not in str(caught.value)


@pytest.mark.parametrize(("n", "more"), [(3, ""), (4, "; and 1 more files differ")])
def test_three_files_that_differ_are_named_and_the_rest_counted(records, n, more):
    used = {row: {f"ops/{name}.py": row * 16 for name in "abcd"[:n]} for row in "xy"}
    mixed = records(*((row, 1, {"code__files": files}) for row, files in used.items()))
    with pytest.raises(ValueError, match=r"^records whose common code") as caught:
        check_comparable(mixed)
    said = "; ".join(f'"{row * 12}" in {row}/seed1.json' for row in used)
    named = "; ".join(f"`ops/{name}.py` is {said}" for name in "abc")
    assert f" cannot share a table: {named}{more}; run the odd ones" in str(caught.value)


def test_other_common_code_has_another_hash(records):
    one, other = (("none", seed, {"code__files": {"train.py": f"{seed}a"}}) for seed in (1, 2))
    mixed = records(one, other)
    assert common_code(mixed[:1]) != common_code(mixed[1:])


def test_another_path_to_the_same_base_is_no_other_setting(records):
    base = {"run_hash": "aa", "checkpoint_sha256": "bb"}
    here, there = ({"base": base, "config__init_from": path} for path in ("here", "/there"))
    check_comparable(records(("none", 1, here), ("none", 2, there)))
    other = {**here, "base": {**base, "checkpoint_sha256": "cc"}}
    with pytest.raises(ValueError, match="row 'none' differ in `base`"):
        check_comparable(records(("none", 1, here), ("none", 2, other)))


def test_what_changed_on_the_way_of_a_run_is_known(write, make_record, make_start, tmp_path):
    starts = [make_start(), make_start(300, threads=1), make_start(450, torch="2.14", threads=1)]
    write(make_record("none", 1, 4.0, 2.6, starts=starts))
    (record,) = read_records(tmp_path / "runs")
    assert changes_on_the_way(record) == [
        "torch 2.13.0, 2.14 from step 450",
        "threads 2, 1 from step 300",
    ]
