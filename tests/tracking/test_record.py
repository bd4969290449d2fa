import json
import logging
import math
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from common.errors import NonFiniteError
from tracking.directory import RunDirectory, open_finished, open_run
from tracking.lines import read_lines
from tracking.record import RunRecord, add_to_record
from tracking.show import show_again, show_to_its_own
from tracking.trackers import Event, Histogram, NoTracker, TrackedRun, Tracker

FACTS = {
    "code": {"commit": "abc", "dirty": False, "files": {}},
    "versions": {"python": "3"},
    "device": {"kind": "cpu", "name": "a CPU", "threads": 2},
    "dtype": "float32",
    "compile": False,
    "data": {"fingerprint": "text"},
    "parameters": 7,
    "parameters_trainable": 8,
    "flops_per_token": 9.0,
}


class Listener:
    """A tracker that remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.run: TrackedRun | None = None

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        self.run = run
        self.events.extend(events)


def open_in(root: Path, **changes) -> RunDirectory:
    config = {
        "seed": 3, "steps": 4, "eval_every": 2, "row_name": "learned", "scale": "nano",
        "table_name": "published_nano",
        "runs_dir": str(root / "runs"),
    }  # fmt: skip
    return open_run(config | changes, "text", dtype="float32", device_kind="cpu")


def losses(step: int) -> dict[str, float | torch.Tensor]:
    return {
        "train/loss_nats": torch.tensor(4.0 - step),
        "val/loss_nats": 4.0 - step if step < 3 else 2.5,
        "val/loss_stderr": 0.1,
        "eval/ones": torch.tensor(0.5),
    }


def train(
    root: Path, first: int = 1, last: int = 4, tracker: Tracker | None = None, **changes
) -> Path:
    """A run in small: from the checkpoint before `first` to `last`, which may be its end."""
    with (
        open_in(root, **changes) as run,
        RunRecord(run, FACTS, tracker or NoTracker(), first - 1) as record,
    ):
        for step in range(first, last + 1):
            record.log(step, {"train/batch_loss_nats": torch.tensor(1 / step)})
            if step % 2 == 0:
                record.log(step, losses(step))
                record.log_masks(step, {"block0/mlp_output": torch.linspace(0, 1, 20)})
                record.log_samples(step, [f"once, at {step}", "upon"])
        if last == 4:
            record.finish(last, losses(2) | {"tokens": 4096}, 2, {"val/loss_nats": 1.9})
    return run.path


def read(path: Path) -> dict:
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_a_finished_run_in_full(tmp_path):
    path = train(tmp_path)
    record = read(path / "record.json")
    assert record.items() >= FACTS.items()
    named = {"schema": 2, "table": "published_nano", "row": "learned", "seed": 3, "steps": 4}
    assert record.items() >= named.items()
    assert (record["status"], record["error"]) == ("finished", None)
    assert record["metrics"]["val/loss_nats"] == 2.0
    assert record["metrics"]["tokens"] == 4096
    assert record["curve"] == [
        {"step": 2, "train/loss_nats": 2.0, "val/loss_nats": 2.0, "eval/ones": 0.5},
        {"step": 4, "train/loss_nats": 0.0, "val/loss_nats": 2.5, "eval/ones": 0.5},
    ]
    assert record["best"] == {"step": 2, "val/loss_nats": 1.9}
    assert record["missing_evaluations"] == [
        0
    ]  # this run in small makes none before its first step
    assert record["config"]["seed"] == 3 and len(record["run_hash"]) == 64
    assert record["started"] <= record["finished"]
    assert not (tmp_path / "results").exists()  # which is not for a run to write
    summary = read(path / "summary.json")
    assert summary["metrics"] == record["metrics"] and summary["directory"] == str(path)
    assert (path / "samples.txt").read_text() == "once, at 4\n\n-----\n\nupon\n"


def test_a_finished_run_is_shown_again_as_it_was_and_with_the_test_split(tmp_path):
    first, again = Listener(), Listener()
    path = train(tmp_path, tracker=first)
    with open_finished(path) as run:
        test = {"final": {"test/loss_nats": 2.2}, "best": {"test/loss_nats": 2.1}}
        add_to_record(run, test=test)
        show_again(run, again)
    assert again.run == first.run
    *events, final, best = again.events
    assert sorted(map(repr, events)) == sorted(map(repr, first.events))
    assert (final, best) == (
        Event(4, {"final/test/loss_nats": 2.2}, closing=True),
        Event(4, {"best/test/loss_nats": 2.1}, closing=True),
    )


def test_a_tracker_that_cannot_be_made_is_left_out_with_a_warning(tmp_path, caplog):
    tracker = {"_target_": "tracking.wandb.WandbTracker", "project": "p", "mode": "no mode"}
    path = train(tmp_path)
    config = OmegaConf.merge(OmegaConf.load(path / "config.yaml"), {"tracker": tracker})
    OmegaConf.save(config, path / "config.yaml")
    with open_finished(path) as run:
        show_to_its_own(run)
    assert "the tracker is left out: tracker.mode=no mode must be one of" in caplog.text


def test_tensors_become_numbers_and_what_is_not_finite_null(tmp_path):
    with open_in(tmp_path) as run, RunRecord(run, FACTS, NoTracker()) as record:
        record.log(1, {"train/loss_nats": torch.tensor(0.1, dtype=torch.float64), "tokens": 64})
        record.log(2, {"val/loss_nats": torch.tensor(float("nan")), "lr": float("inf")})
        record.log(3, {"val/loss_nats": 3.0})
        record.finish(3, {"val/loss_nats": 3.0, "lr": float("nan")}, 3, {"val/loss_nats": 3.0})
    first, second, *_ = read_lines(run.path / "metrics.jsonl")
    assert (first["train/loss_nats"], first["tokens"]) == (0.1, 64)
    assert second["val/loss_nats"] is None and second["lr"] is None
    record = read(run.path / "record.json")
    assert record["best"]["step"] == 3 and record["metrics"]["lr"] is None


@pytest.mark.parametrize("checkpoint", [0, 1, 2, 3])
def test_a_resumed_run_has_the_lines_of_an_undisturbed_one(tmp_path, checkpoint):
    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", last=3)
    cut = train(tmp_path / "cut", first=checkpoint + 1)
    for name in ("metrics.jsonl", "media.jsonl"):
        lines = [read_lines(path / name) for path in (whole, cut)]
        for line in (*lines[0], *lines[1]):
            line.pop("time_s", None)
        assert lines[0] == lines[1]
    records = [read(path / "record.json") for path in (whole, cut)]
    assert records[0]["curve"] == records[1]["curve"]
    assert records[0]["best"] == records[1]["best"]


@pytest.mark.parametrize(("status", "time_s"), [("interrupted", 2000), ("running", 1000)])
def test_time_goes_on_after_a_resume(tmp_path, status, time_s):
    """From where an interrupted session stopped, and from the last line of a killed one."""
    path = train(tmp_path, last=2)
    lines = read_lines(path / "metrics.jsonl")
    lines[-1]["time_s"] = 1000.0
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = read(path / "record.json") | {"status": status, "time_s": 2000.0}
    (path / "record.json").write_text(json.dumps(record))
    train(tmp_path, first=3)
    record = read(path / "record.json")
    assert time_s < record["metrics"]["time_s"] <= record["time_s"] < time_s + 100


def test_a_tracker_sees_everything_once_in_order_and_after_a_resume_again(tmp_path):
    train(tmp_path / "cut", last=3)
    whole, resumed = Listener(), Listener()
    train(tmp_path / "whole", tracker=whole)
    path = train(tmp_path / "cut", first=3, tracker=resumed)

    def told(listener: Listener) -> set[tuple[int, str, str]]:
        return {
            (event.step, name, str(value))
            for event in listener.events
            for name, value in event.values.items()
            if name != "time_s"
        }

    assert told(whole) == told(resumed)
    for listener in (whole, resumed):
        steps = [event.step for event in listener.events]
        assert steps == sorted(steps) and len(steps) == 4 + 2 * 3 + 2
        final, best = [event.values for event in listener.events if event.closing]
        assert final.items() >= {"final/val/loss_nats": 2.0, "tokens": 4096}.items()
        assert best == {"best/step": 2, "best/val/loss_nats": 1.9}
        histograms = [e.values for e in listener.events if "masks/block0/mlp_output" in e.values]
        assert histograms[0] == {"masks/block0/mlp_output": Histogram([1] * 20)}
    assert resumed.run is not None
    assert (resumed.run.group, resumed.run.job_type) == ("published_nano", "learned")
    assert resumed.run.directory == path and resumed.run.exit_code == 0


@pytest.mark.parametrize(
    ("error", "status", "exit_code"),
    [
        (None, "interrupted", 75),
        (SystemExit(75), "interrupted", 75),
        (KeyboardInterrupt(), "interrupted", 75),
        (SystemExit(2), "failed", 1),
        (RuntimeError("no memory\nat all"), "failed", 1),
    ],
)
def test_how_a_run_ended_is_told(tmp_path, error, status, exit_code):
    listener = Listener()
    expected = nullcontext() if error is None else pytest.raises(type(error))
    with expected, open_in(tmp_path) as run, RunRecord(run, FACTS, listener) as record:
        record.log(1, losses(1))
        assert read(run.path / "record.json")["status"] == "running"
        if error is not None:
            raise error
    record = read(run.path / "record.json")
    assert record["status"] == read(run.path / "summary.json")["status"] == status
    assert record["curve"][0]["step"] == 1 and record["metrics"] is None
    assert listener.run is not None and listener.run.exit_code == exit_code
    log = (run.path / "log.txt").read_text()
    if status == "failed":
        assert record["error"] == f"{type(error).__name__}: {error}"
        assert "Traceback" in log and record["error"] in log
    else:
        assert record["error"] is None and "Traceback" not in log


def test_every_start_is_kept_and_the_first_one_speaks_for_the_run(tmp_path):
    train(tmp_path, last=2)
    with open_in(tmp_path) as run:
        elsewhere = FACTS | {"device": FACTS["device"] | {"threads": 8}}
        with RunRecord(run, elsewhere, NoTracker(), 2):
            pass
        record = run.read_record()
    assert [start["step"] for start in record["starts"]] == [0, 2]
    assert [start["device"]["threads"] for start in record["starts"]] == [2, 8]
    assert record["device"] == FACTS["device"]


def test_an_evaluation_that_is_lost_is_named(tmp_path):
    path = train(tmp_path, last=3)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(li for li in lines if "val/loss_nats" not in li))
    train(tmp_path, first=4)
    assert read(path / "record.json")["missing_evaluations"] == [0, 2]


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """A disk that takes no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("final", "best"), [(math.nan, 1.0), (2.0, math.inf)])
def test_a_closing_loss_that_is_not_finite_is_no_result(tmp_path, final, best):
    with (
        pytest.raises(NonFiniteError, match=r"the val loss is (nan|inf) in evaluation"),
        open_in(tmp_path) as run,
        RunRecord(run, FACTS, NoTracker()) as record,
    ):
        record.finish(4, {"val/loss_nats": final}, 2, {"val/loss_nats": best})
    assert read(run.path / "record.json")["status"] == "failed"


def test_masks_and_samples_that_are_lost_are_named(tmp_path, caplog):
    path = train(tmp_path, last=3)
    (path / "media.jsonl").write_text('{"torn')
    train(tmp_path, first=4)
    assert "media.jsonl has lost the masks and samples of step 2:" in caplog.text


def test_a_full_disk_is_said_clearly_and_the_files_stay_whole(tmp_path):
    def fill(run: RunDirectory) -> None:
        with RunRecord(run, FACTS, NoTracker()) as record:
            for step in range(1000):
                record.log(step, {"train/batch_loss_nats": 0.1})

    message = r"metrics.jsonl: the file size limit.*runs_dir"
    with open_in(tmp_path) as run, file_size_limit(4096), pytest.raises(ValueError, match=message):
        fill(run)
    assert read(run.path / "record.json")["status"] == "failed"
    assert len(read_lines(run.path / "metrics.jsonl")) > 10
    train(tmp_path, first=3)
    assert read(run.path / "record.json")["status"] == "finished"


def test_the_first_error_is_the_one_that_is_seen(tmp_path):
    """Where the disk is so full that even the record of the failure does not fit."""

    with open_in(tmp_path) as run:
        record = RunRecord(run, FACTS, NoTracker()).__enter__()
        error = ZeroDivisionError("the cause")
        with file_size_limit(100):
            assert not record.__exit__(type(error), error, None)
    assert read(run.path / "record.json")["status"] == "running"  # as before, and whole


def test_a_damaged_line_leaves_nothing_open(tmp_path):
    before = list(logging.getLogger().handlers)
    path = train(tmp_path, last=2)
    (path / "metrics.jsonl").write_text("damaged\n")
    with pytest.raises(ValueError, match="line 1 is damaged"):
        train(tmp_path, first=3)
    assert logging.getLogger().handlers == before


def test_what_is_logged_stands_in_the_run_and_in_no_later_one(tmp_path):
    before = list(logging.getLogger().handlers)
    with open_in(tmp_path) as run, RunRecord(run, FACTS, NoTracker()):
        logging.getLogger("train").warning("heed this")
    assert logging.getLogger().handlers == before
    assert "train: heed this" in (run.path / "log.txt").read_text()


def test_a_run_killed_in_its_closing_evaluation_keeps_its_speed(tmp_path):
    with open_in(tmp_path) as run:
        with RunRecord(run, FACTS, NoTracker()) as record:
            record.log(4, {"tokens_per_s": 50.0})
        with RunRecord(run, FACTS, NoTracker(), step=4) as record:
            record.finish(4, {"val/loss_nats": 1.0}, 4, {"val/loss_nats": 1.0})
        assert run.read_record()["metrics"]["tokens_per_s"] == 50.0
