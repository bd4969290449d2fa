"""W&B online, at a stand-in for its server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wandb_server import Server

ROOT = Path(__file__).parents[2]

SESSION = """
import os, signal, sys
from pathlib import Path
from tracking.trackers import Event, TrackedRun
from tracking.wandb import WandbTracker

directory, last, exit_code = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
events = [Event(step, {"val/loss_nats": 1 / step}) for step in range(1, last + 1)]
if exit_code == 0:
    events.append(Event(last, {"final/val/loss_nats": 0.5, "time_s": 7.0}, closing=True))
run = TrackedRun("id", directory, {"seed": 1}, "table", "row", "name", [], exit_code)
WandbTracker(project="dropout", mode="online").track(run, events)
"""


@pytest.fixture
def server():
    with Server() as server:
        yield server


def ask(server: Server, program: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": server.address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


READ = """
import json, sys
from experiments.sources import from_wandb

(record,) = from_wandb("published_nano", "dropout", None)
assert record.content == json.load(open(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run_without_gaps_or_doubled_steps(tmp_path, server):
    """Each session brings its steps from the first on, as `RunRecord` does after a resume.

    The last one goes on from the end: killed in its closing evaluation, say. Its record is read back.
    """
    record = tmp_path / "record.json"
    finished = (ROOT / "results/runs/published_nano/none/seed1.json").read_text()
    for last, exit_code in ((5, os.EX_TEMPFAIL), (8, 1), (8, 0)):
        record.write_text(finished if exit_code == 0 else '{"status": "running"}')
        ask(server, SESSION, tmp_path, last, exit_code)
    ask(server, READ, record)
    assert list(server.runs) == ["id"]
    run = server.runs["id"]
    assert run.created.items() >= {
        "name": "id", "project": "dropout", "groupName": "table", "jobType": "row",
    }.items()  # fmt: skip
    lines = [json.loads(line) for line in run.history]
    assert [line["_step"] for line in lines] == list(range(1, 9))
    assert [line["val/loss_nats"] for line in lines] == [1 / step for step in range(1, 9)]
    assert run.summary.items() >= {"final/val/loss_nats": 0.5, "progress/time_s": 7.0}.items()
    assert run.exit_codes == [os.EX_TEMPFAIL, 1, 0]
