"""The guard of a tracker, and the names that a dashboard is given."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from cli.instantiate import instantiate, read_config
from tracking.directory import open_run
from tracking.lines import read_lines
from tracking.record import RunRecord
from tracking.show import closing_event, events
from tracking.signals import StopSignals
from tracking.tensorboard import TensorBoardTracker
from tracking.trackers import (
    Event,
    GuardedTracker,
    Histogram,
    NoTracker,
    TrackedRun,
    Value,
    shown,
)
from tracking.wandb import WandbTracker
from train import train
from training.state import TrainState


def tracked_run(directory: Path) -> TrackedRun:
    return TrackedRun(
        "id", directory, {"seed": 1}, group="table", job_type="row", name="row seed 1"
    )


# The guard


class Raising:
    """Fails after so many events; -1: before it asks for any."""

    def __init__(self, after: int) -> None:
        self.after = after

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        if self.after < 0:
            raise ConnectionError("no way there")
        for n, _ in enumerate(events):
            if n >= self.after:
                raise ConnectionError("no way there")


class Hanging(Raising):
    """Hangs after so many events; -1: before it asks for any."""

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        try:
            super().track(run, events)
        except ConnectionError:
            threading.Event().wait()


@pytest.mark.parametrize("after", [-1, 0, 10])
@pytest.mark.parametrize("kind", [Raising, Hanging])
@pytest.mark.parametrize("capacity", [5, 1000])
def test_a_tracker_that_fails_or_hangs_costs_one_warning(tmp_path, caplog, kind, after, capacity):
    began = time.monotonic()
    guard = GuardedTracker(
        kind(after),
        tracked_run(tmp_path),
        start_timeout_s=0.2,
        finish_timeout_s=0.2,
        capacity=capacity,
    )
    for step in range(100):
        guard.put(Event(step, {"loss": 1.0}))
    in_the_loop_s = time.monotonic() - began
    guard.close(0)
    assert in_the_loop_s < 2.0
    assert time.monotonic() - began < 5.0
    (warning,) = [r for r in caplog.records if r.name == "tracking.trackers"]
    assert "the tracker is dropped" in warning.message and str(tmp_path) in warning.message


def test_a_slow_tracker_gets_everything_in_order(tmp_path):
    got: list[int] = []

    class Slow:
        def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
            time.sleep(0.1)
            got.extend(event.step for event in events)

    guard = GuardedTracker(Slow(), tracked_run(tmp_path), [Event(0, {}), Event(1, {})])
    for step in range(2, 50):
        guard.put(Event(step, {}))
    guard.close(0)
    assert got == list(range(50))


def test_no_tracker_is_no_failure(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    guard = GuardedTracker(NoTracker(), tracked_run(tmp_path), [Event(0, {})], capacity=1)
    time.sleep(0.05)
    for step in range(9):
        guard.put(Event(step, {}))
    guard.close(0)
    assert not caplog.records


# What a dashboard is given


@pytest.fixture
def told(tiny_cfg) -> dict[str, Value]:
    """All that a tiny learned run tells of itself, by name."""
    cfg = tiny_cfg("dropout=learned_everywhere", "steps=2", "model.n_layer=1")
    device = {"kind": "cpu", "name": "a CPU", "threads": 1}
    facts = {"code": {"commit": None, "files": {}}, "versions": {}, "device": device}
    opened = open_run(cfg, "text", dtype="float32", device_kind="cpu")
    with opened as run, RunRecord(run, facts, NoTracker()) as record, StopSignals() as stop:
        train(TrainState.build(cfg), run, record, stop)
    files = (read_lines(run.path / name) for name in ("metrics.jsonl", "media.jsonl"))
    closing = closing_event(2, "best", run.read_record()["best"])
    seen = [*events([line for lines in files for line in lines]), closing]
    return {name: value for event in seen for name, value in event.values.items()}


def test_what_a_run_tells_has_a_group_and_no_dot_and_is_little_for_a_deep_model(told):
    block = [name for name in told if "block0" in name]
    deep = told | {n.replace("block0", f"block{k}"): told[n] for n in block for k in range(26)}
    assert sum(name.startswith("masks/block") for name in deep) == 26 * 3
    groups = {"train", "val", "eval", "optimizer", "speed", "progress", "final", "best", "masks"}
    few = shown(deep, modules=False)
    assert {name.split("/")[0] for name in few if name != "samples"} == groups
    curves = [name for name in few if not name.startswith(("final/", "best/"))]
    assert len(curves) < 40  # a panel each
    many = shown(deep, modules=True)
    assert few.keys() < many.keys() and len(many) == len(deep) + 1
    assert all("/" in name for name in many if name != "samples")
    assert not any("." in name for name in many)


def test_the_masks_of_all_modules_are_one_histogram():
    masks = {"masks/block0/a": Histogram([1, 0, 3]), "masks/block1/a": Histogram([0, 2, 4])}
    together = {"masks/all": Histogram([1, 2, 7])}
    assert shown(masks, modules=False) == together
    assert shown(masks, modules=True) == masks | together
    closing = {"final/modules/block0/mlp/eval/ones": 1.0}
    assert shown(closing, modules=False) == {} and shown(closing, modules=True) == closing


@pytest.mark.parametrize(
    ("name", "tracker"),
    [("wandb", WandbTracker), ("tensorboard", TensorBoardTracker), ("none", NoTracker)],
)
def test_the_config_makes_the_tracker(name, tracker):
    if name == "tensorboard":
        pytest.importorskip("tensorboard")
    cfg = read_config(Path(__file__).parents[2] / "configs" / "tracker" / f"{name}.yaml")
    assert isinstance(instantiate(cfg), tracker)


def test_importing_the_module_does_not_import_wandb():
    command = "import sys, tracking.wandb; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0
