import signal
import subprocess
import sys
import time

import pytest

from tracking.signals import INTERRUPTED, NOTICES, STOPS, StopSignals, resume_command

LOOP = """
import signal, sys, time
from tracking.signals import StopSignals
sys.argv[1:] = ["scale=nano", "fresh=true", "dropout.p=0.3"]
if "handled" in sys.orig_argv:  # as submitit does: SIGTERM only noted, SIGUSR2 ends it
    signal.signal(signal.SIGTERM, lambda number, frame: print("former: noted", flush=True))
    signal.signal(signal.SIGUSR2, lambda number, frame: (print("former: queued"), sys.exit(33)))
with StopSignals() as stop:
    for step in range(2000):
        print("step", step, flush=True)
        time.sleep(0.01)
        print("done", step, flush=True)
        if "fails" in sys.orig_argv and stop.requested:
            raise ValueError("the loss is not finite")
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


@pytest.mark.parametrize("signum", [*STOPS, *NOTICES])
def test_a_signal_lets_the_step_finish_and_says_how_to_go_on(signum):
    process = start()
    process.send_signal(signum)
    out, err = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED == 75
    assert out.splitlines()[-1].startswith("done")
    assert f"{signum.name}: finishing this step" in err
    assert "To go on: python -c scale=nano dropout.p=0.3\n" in err  # fresh=true would start anew


@pytest.mark.parametrize("signum", STOPS)
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


def test_notices_may_come_again_and_before_a_sigterm():
    process = start("obstinate")
    for signum in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR2):
        process.send_signal(signum)
        time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.count("finishing this step") == 3  # once each


@pytest.mark.parametrize(
    ("signums", "code", "last"),
    [
        ([signal.SIGUSR2], 33, "former: queued"),
        ([signal.SIGTERM], 75, "former: noted"),
        ([signal.SIGTERM, signal.SIGUSR2], 33, "former: queued"),
        ([signal.SIGINT], 75, "done"),  # Python's own handler, which makes it a KeyboardInterrupt
        ([signal.SIGUSR1], 75, "done"),
    ],
)
def test_a_former_handler_is_called_once_the_loop_has_ended(signums, code, last):
    process = start("handled")
    process.send_signal(signal.SIGSTOP)
    for signum in signums:
        process.send_signal(signum)
    process.send_signal(signal.SIGCONT)  # it gets them all at once, in an order of the kernel's
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert out.splitlines()[-1].startswith(last)
    assert out.count("done") == 1 + out.count("step")  # the first of them is read by `start`
    assert ("To go on" in err) == (last == "done")


def test_a_former_handler_does_not_hide_an_error():
    process = start("handled", "fails")
    process.send_signal(signal.SIGUSR2)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "former" not in out
    assert "the loss is not finite" in err


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(signum) for signum in (*STOPS, *NOTICES)]
    with StopSignals() as stop:
        assert signal.getsignal(signal.SIGINT) not in before
        assert not stop.requested
    assert [signal.getsignal(signum) for signum in (*STOPS, *NOTICES)] == before


def test_the_command_is_one_that_a_shell_understands(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["train.py", "row_name=a b", "++fresh=true", "dropout=learned"]
    )
    assert resume_command() == "python train.py 'row_name=a b' dropout=learned"
