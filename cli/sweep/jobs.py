"""One job of a sweep: a child process with a log of its own."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from cli.errors import WANTS_TRACEBACK
from cli.sweep.gpus import VISIBLE
from common.processes import end_with

TAIL_BYTES = 16_384
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
HEAD_BYTES = 65_536
RUN_DIRECTORY = re.compile(r"^run directory: (.+)$", re.M)  # as train.py says it
ERROR_LINE = re.compile(r"error: |[\w.]+(Error|Exception|Interrupt)\b")


class Job:
    """A child process that runs `command`, in a process group of its own, and appends to `log`."""

    def __init__(self, number: int, title: str, command: Sequence[str], log: Path) -> None:
        self.number, self.title, self.command, self.log = number, title, command, log
        self.gpu: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None  # as Popen has it: negative, a signal's number
        self.asked_to_stop = False
        self.started = self.seconds = 0.0
        self.log_start = 0

    def start(self, env: Mapping[str, str], gpu: str | None = None) -> None:
        """Start in the environment `env`, on the one GPU where it is given."""
        self.gpu = gpu
        on_gpu = {} if gpu is None else {VISIBLE: gpu}
        told = shlex.join([*(f"{name}={value}" for name, value in on_gpu.items()), *self.command])
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"# {datetime.now():%F %T}  {told}\n".encode())
            self.log_start = log.tell()
            log.flush()
            parent = os.getpid()
            self.process = subprocess.Popen(
                self.command,
                env={**env, **on_gpu},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=lambda: _bind_to(parent),
            )
        self.started = time.monotonic()

    def poll(self) -> bool:
        """Whether the job has ended; what it left behind in its process group ends with it."""
        assert self.process is not None
        self.seconds = time.monotonic() - self.started
        self.code = self.process.poll()
        if self.code is not None:
            self._signal_group(signal.SIGKILL)
        return self.code is not None

    def interrupt(self) -> None:
        """Ask the job to save and exit. The job alone: its helpers are its own affair."""
        assert self.process is not None
        self.asked_to_stop = True
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.asked_to_stop = True
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def last_line(self) -> str:
        """What the job said last."""
        return next(iter(reversed(self._tail())), "")

    def reason(self) -> str:
        """Why the job failed: the signal that ended it, or the last error in its log."""
        assert self.code is not None
        if self.code == -signal.SIGKILL:
            return "killed (SIGKILL): by hand, or by the system when memory ran out"
        if self.code < 0:
            return f"killed ({signal.Signals(-self.code).name})"
        errors = [line for line in self._tail() if ERROR_LINE.match(line)]
        return f"exit {self.code}: {errors[-1] if errors else self.last_line()}"

    def run_directory(self) -> Path | None:
        """Where the job's run lies, as it said at its start."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            found = RUN_DIRECTORY.search(log.read(HEAD_BYTES).decode(errors="replace"))
        return Path(found[1]) if found else None

    def _tail(self) -> list[str]:
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self.log_start, size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]


def job_environment(processes: int) -> dict[str, str]:
    """The environment of jobs of so many processes at a time: the CPU's threads are shared out.

    A number of threads that the user set holds.
    """
    env = dict(os.environ, PYTHONUNBUFFERED="1")  # what a killed job said must be in its log
    if not WANTS_TRACEBACK:
        env.pop("HYDRA_FULL_ERROR", None)
    if processes > 1:
        share = max(1, _cores() // processes)
        for name in THREADS:
            env.setdefault(name, str(share))
    return env


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _bind_to(parent: int) -> None:
    """In the child, before exec: Ctrl-C as usual, and SIGTERM if the sweep dies without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a sweep in the background may ignore it
    end_with(parent, signal.SIGTERM)
