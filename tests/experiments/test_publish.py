import json

import pytest

from experiments.publish import main, swept


@pytest.fixture
def run(tmp_path, make_record):
    """Write a run's own record where training leaves it."""

    def write(row, seed, val=4.0, digest="0123abcd", **changes):
        record = make_record(row, seed, val, 2.6, **{"test": None, **changes})
        folder = tmp_path / "mine" / row / f"seed{seed}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(record))
        return record

    return write


@pytest.fixture
def publish(small_case, tmp_path, capsys):
    """The command on those runs: its exit code, and what it said."""

    def call(*options):
        places = ["--runs", str(tmp_path / "mine"), "--out", str(tmp_path / "results")]
        code = main([small_case, *places, *options])
        return code, capsys.readouterr().err

    return call


def published(tmp_path):
    paths = sorted((tmp_path / "results").glob("*/*"))
    return {f"{path.parent.name}/{path.name}": json.loads(path.read_text()) for path in paths}


def test_runs_of_the_tables_own_settings_are_copied_as_they_are(run, publish, tmp_path):
    records = [run("none", 1), run("none", 2)]
    assert publish() == (0, "2 published, 0 not\n")
    assert list(published(tmp_path).values()) == records


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"overrides": ["table=small_case", "steps=30"]},
            "override 'steps=30' is not of the table",
        ),
        ({"overrides": ["++model.n_embd=64"]}, "override '++model.n_embd=64'"),
        ({"overrides": ["dropout/slot@dropout.mlp_output=locked"]}, "override 'dropout/slot@"),
        ({"status": "failed"}, "status='failed': only a finished run is a result"),
        ({"table": "another"}, "table='another' is not 'small_case'"),
        ({"config__scale": "small"}, "scale='small' is not the table's 'nano'"),
        ({"parameters": "many"}, "`parameters` is a string"),
    ],
)
def test_anything_else_is_refused_by_name_and_the_rest_is_written(
    run, publish, tmp_path, changes, said
):
    run("none", 1)
    run("learned", 1, **changes)
    code, error = publish()
    assert code == 1
    assert "not published: learned/seed1-0123abcd/record.json: " in error and said in error
    assert published(tmp_path).keys() == {"none/seed1.json"}


def test_two_rows_that_are_one_run_are_refused(run, publish, tmp_path):
    run("none", 1, run_hash="a" * 64)
    run("learned", 1, run_hash="a" * 64)
    code, error = publish()
    assert (code, published(tmp_path)) == (2, {})
    assert "seed1-0123abcd/record.json are one run under two rows' names" in error


def test_a_row_that_the_table_has_not_is_refused(run, publish, tmp_path):
    run("shared", 1)
    code, error = publish()
    assert (code, published(tmp_path)) == (1, {})
    assert "row='shared' is not a row of the table (none, standard_0.2, learned, unborn)" in error
    assert "--add DIR" in error


def test_what_changes_no_number_and_what_the_table_says_itself_is_free(
    run, publish, small_case, tmp_path
):
    with open(small_case) as file:
        text = file.read().replace(
            "table=small_case\n", "table=small_case data=files data.paths=a.xz\n"
        )
    with open(small_case, "w") as file:
        file.write(text)
    free = ["seed=3", "row=small/none", "tracker.mode=offline", "device=cpu", "init_from=x"]
    free += ["hydra.launcher.workers=2", "data=files", "data.paths=/elsewhere/a.xz", "~tracker"]
    run("none", 1, overrides=free)
    run("none", 2, overrides=["data=wikipedia"])
    assert publish()[0] == 1
    assert published(tmp_path).keys() == {"none/seed1.json"}


def test_two_runs_of_one_row_and_seed_are_both_refused(run, publish, tmp_path):
    run("none", 1)
    run("none", 1, digest="4567cdef")
    code, error = publish()
    assert (code, published(tmp_path)) == (1, {})
    assert "one of several runs of its row and seed" in error


def test_a_run_of_equal_weights_keeps_the_test_split_that_was_read(run, publish, tmp_path):
    run("none", 1, test={"windows": 9, "final": {"test/loss_nats": 4.01}})
    assert publish()[0] == 0
    run("none", 1, metrics__time_s=1.0)
    assert publish()[0] == 0
    (record,) = published(tmp_path).values()
    assert record["metrics"]["time_s"] == 1.0
    assert record["test"] == {"windows": 9, "final": {"test/loss_nats": 4.01}}


def test_another_result_wants_to_be_asked_for_and_takes_no_test_split(run, publish, tmp_path):
    old = run("none", 1, test={"windows": 9, "final": {"test/loss_nats": 4.01}})
    publish()
    run("none", 1, val=3.5)
    code, error = publish()
    assert code == 1 and list(published(tmp_path).values()) == [old]
    assert "train 2.600, val 4.000 of run none1 there, train 2.600, val 3.500" in error
    assert publish("--replace")[0] == 0
    (record,) = published(tmp_path).values()
    assert (record["metrics"]["val/loss_nats"], record["test"]) == (3.5, None)


def test_an_older_run_does_not_replace_a_newer_one(run, publish, tmp_path):
    new = run("none", 1)
    publish()
    run("none", 1, finished="2025-12-31T00:00:00+00:00", metrics__time_s=1.0)
    code, error = publish()
    assert code == 1 and "is older" in error
    assert list(published(tmp_path).values()) == [new]


def test_runs_that_would_not_mix_with_those_there_write_nothing(run, publish, tmp_path):
    old = run("none", 1)
    publish()
    run("none", 2)
    run("learned", 1, dtype="float32")
    code, error = publish()
    assert code == 2 and "cannot share a table" in error
    assert list(published(tmp_path).values()) == [old]


def test_no_runs_at_all_say_how_to_make_them(publish):
    code, error = publish()
    assert code == 2 and "make them with `python train.py table=small_case`" in error


def test_what_a_tables_own_file_sweeps_over_is_its_own(run, publish, tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(
        "hydra: {sweeper: {params: {seed: 1, optimizer.weight_decay: '0,0.3, 1'}}}\n"
    )
    monkeypatch.setattr("experiments.publish.TABLES", tmp_path)
    assert swept(["python", "train.py", "table=small"]) == [
        *("seed=1", "optimizer.weight_decay=0", "optimizer.weight_decay=0.3"),
        "optimizer.weight_decay=1",
    ]
    assert swept(["python", "train.py", "table=missing"]) == []
    monkeypatch.setattr("experiments.publish.swept", lambda _: ["optimizer.weight_decay=0.3"])
    run("none", 1, overrides=["optimizer.weight_decay=0.3"])
    run("learned", 1, overrides=["optimizer.weight_decay=3"])
    code, error = publish()
    assert code == 1 and "'optimizer.weight_decay=3' is not of the table" in error
    assert published(tmp_path).keys() == {"none/seed1.json"}


def test_a_published_record_has_no_path_of_the_machine_that_made_it(run, publish, tmp_path):
    config = run("none", 1)["config"] | {"runs_dir": "/home/me/runs", "init_from": None}
    config["data"] = {"cache_dir": "/home/me/cache", "paths": ["/home/me/a.txt"], "split": "x"}
    run("none", 1, config=config, overrides=["runs_dir=/home/me/runs", "seed=1"])
    assert publish()[0] == 0
    (record,) = published(tmp_path).values()
    assert "/home/me" not in json.dumps(record)
    assert record["overrides"] == ["seed=1"] and record["config"]["data"] == {"split": "x"}
