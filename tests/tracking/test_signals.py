import signal
import subprocess
import sys

import pytest

from tracking.signals import INTERRUPTED, StopSignals, resume_command

LOOP = """
import sys, time
from tracking.signals import StopSignals
sys.argv[1:] = ["scale=nano", "fresh=true", "dropout.p=0.3"]
with StopSignals() as stop:
    for step in range(2000):
        print("step", step, flush=True)
        time.sleep(0.01)
        print("done", step, flush=True)
        if stop.requested and not "obstinate" in sys.orig_argv:
            raise stop.interrupted()
"""


def start(*arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "step 0\n"
    return process


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_and_says_how_to_go_on(signum):
    process = start()
    process.send_signal(signum)
    out, err = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED == 75
    assert out.splitlines()[-1].startswith("done")
    assert f"{signum.name}: finishing this step" in err
    assert "To go on: python -c scale=nano dropout.p=0.3\n" in err  # fresh=true would start anew


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(signum):
    process = start("obstinate")
    process.send_signal(signum)
    assert process.stdout is not None and process.stderr is not None
    while "finishing" not in process.stderr.readline():
        pass
    process.send_signal(signum)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signum
    assert f"{signum.name} again: stopping at once" in err


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        assert signal.getsignal(signal.SIGINT) not in before
        assert not stop.requested
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_command_is_one_that_a_shell_understands(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["train.py", "row_name=a b", "++fresh=true", "dropout=learned"]
    )
    assert resume_command() == "python train.py 'row_name=a b' dropout=learned"
