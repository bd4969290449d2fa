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
from tracking.trackers import Event, GuardedTracker, NoTracker, TrackedRun, shown
from tracking.wandb import WandbTracker


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


def test_every_metric_has_a_group_and_no_name_a_dot():
    values = {"lr": 0.1, "time_s": 2.0, "eval/above_0.9": 0.5, "modules/block0/mlp/eval/ones": 1.0}
    few = {"optimizer/lr": 0.1, "progress/time_s": 2.0, "eval/above_0_9": 0.5}
    assert shown(values, modules=False) == few
    assert shown(values, modules=True) == few | {"modules/block0/mlp/eval/ones": 1.0}
    closing = {"final/modules/block0/mlp/eval/ones": 1.0}
    assert shown(closing, modules=False) == {} and shown(closing, modules=True) == closing


@pytest.mark.parametrize("name", ["wandb", "none"])
def test_the_config_makes_the_tracker(monkeypatch, name):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    cfg = read_config(Path(__file__).parents[2] / "configs" / "tracker" / f"{name}.yaml")
    made = instantiate(cfg)
    assert isinstance(made, WandbTracker if name == "wandb" else NoTracker)


def test_importing_the_module_does_not_import_wandb():
    command = "import sys, tracking.wandb; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0
