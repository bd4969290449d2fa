"""Code written anew may go on sharing tables, where reruns have shown that it computes the same."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from common import equal_code
from common.errors import UserError
from experiments.mixing import check_comparable, common_code
from experiments.records import Finished, read_record
from experiments.same_code import Rerun, show
from experiments.spec import RESULTS
from tests.soak.runs import ROOT, TINY, write_corpus

FILE = "training/step.py"


@pytest.fixture
def record() -> Finished:
    path = RESULTS / "runs" / "published_nano" / "none" / "seed1.json"
    record = read_record(path, Path("none/seed1.json"))
    assert isinstance(record, Finished)
    return record


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A function that writes what was shown of FILE: pairs of [then, now]."""

    def write(*pairs: list[str]) -> None:
        path = tmp_path / f"{len(pairs)}.json"
        path.write_text(json.dumps([{"files": {FILE: pair}} for pair in pairs]))
        monkeypatch.setattr(equal_code, "PATH", path)

    return write


def test_versions_that_were_shown_to_be_equal_are_the_oldest_one(shown):
    shown(["a", "b"], ["b", "c"])
    assert [equal_code.oldest(FILE, digest) for digest in "abcd"] == ["a", "a", "a", "d"]
    assert equal_code.oldest("data/prepare.py", "c") == "c"


def test_two_that_were_each_shown_to_equal_a_third_are_one(shown):
    shown(["a", "b"], ["c", "b"], ["c", "d"])
    assert len({equal_code.oldest(FILE, digest) for digest in "abcd"}) == 1


def test_their_records_share_a_table_and_its_code(record, shown, tmp_path):
    content = copy.deepcopy(record.content)
    old = content["code"]["files"][FILE]
    content["code"]["files"][FILE] = "f" * 16
    content["seed"] = 2
    path = tmp_path / "seed2.json"
    path.write_text(json.dumps(content))

    def both() -> list[Finished]:
        return [record, read_record(path, Path("none/seed2.json"))]

    with pytest.raises(UserError, match=FILE):
        check_comparable(both())
    shown([old, "f" * 16])
    check_comparable(both())
    assert common_code(both()) == common_code([record])


def again(record: Finished) -> dict:
    """A rerun of the record, in files of which one has changed."""
    content = copy.deepcopy(record.content)
    content["code"]["files"][FILE] = "f" * 16
    content["metrics"]["time_s"] += 1
    return content


def test_a_rerun_without_a_difference_names_what_has_changed(record):
    done = Rerun(record, again(record))
    assert done.difference() is None
    assert done.changed() == {FILE: [record.content["code"]["files"][FILE], "f" * 16]}


@pytest.mark.parametrize(
    ("part", "key"), [("metrics", "val/loss_nats"), ("best", "train/loss_nats"), ("curve", None)]
)
def test_one_bit_is_a_difference(record, part, key):
    content = again(record)
    target = content[part][5] if key is None else content[part]
    target[key or "val/loss_nats"] *= 1 + 1e-15
    assert "then" in (Rerun(record, content).difference() or "")


def test_a_rerun_that_was_stopped_is_compared_as_far_as_it_went(record):
    content = again(record) | {"status": "interrupted", "metrics": None}
    del content["curve"][3:]
    assert Rerun(record, content).difference() is None
    content["curve"].append(record.content["curve"][4])  # an evaluation is lost
    assert Rerun(record, content).difference() is not None


@pytest.mark.slow
def test_real_runs(tmp_path, shown):
    shown()
    write_corpus(tmp_path / "articles.jsonl")
    own = [
        *TINY,
        f"data.paths={tmp_path / 'articles.jsonl'}",
        f"data.cache_dir={tmp_path / 'cache'}",
    ]
    own += ["row_name=tiny", "table_name=tiny"]
    command = [sys.executable, "train.py", *own, f"runs_dir={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("tiny/*/*/record.json")
    content = json.loads(path.read_text())
    content["overrides"] = own
    content["code"]["files"][FILE] = "0" * 16  # as if it had been written anew since
    path.write_text(json.dumps(content))
    record = read_record(path, Path("tiny/seed1/record.json"))
    now = equal_code.oldest  # nothing is known yet
    entry = show([record, record], until=3)
    assert list(entry["files"]) == [FILE]
    assert entry["files"][FILE][0] == "0" * 16 == now(FILE, "0" * 16)
    content["curve"][-1]["val/loss_nats"] += 1e-9
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="tiny seed 1 at step 12"):
        show([read_record(path, Path("tiny/seed1/record.json"))], until=None)
