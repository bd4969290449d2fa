"""A SLURM of one node on this machine, in a folder of its own, that ends with its block."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
PATIENCE_S = 60
# No munge: one user on one machine trusts itself. A requeued job may start again after 5 s.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> list[str]:
    """The programs that are not installed here."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it in `folder`; yields the environment in which its commands find it."""
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    config = folder / "slurm.conf"
    controller_port, node_port = _free_ports()
    config.write_text(
        CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            cpus=os.cpu_count(),
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
        )
    )
    env = {**os.environ, "SLURM_CONF": str(config)}
    with ExitStack() as daemons:
        for program in ("slurmctld", "slurmd"):
            daemons.enter_context(_daemon(program, folder, env))
        _wait_until_idle(folder, env)
        try:
            yield env
        finally:  # no job outlives it
            subprocess.run(["scancel", "--full", f"--user={getpass.getuser()}"], env=env)
            _wait_until_idle(folder, env)


@contextmanager
def _daemon(program: str, folder: Path, env: dict[str, str]) -> Iterator[None]:
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([program, "-D"], env=env, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _wait_until_idle(folder: Path, env: dict[str, str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    command = ["sinfo", "--noheader", "--format=%T"]
    while subprocess.run(command, env=env, capture_output=True, text=True).stdout != "idle\n":
        logs = "".join(log.read_text() for log in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"SLURM is not idle:\n{logs}"
        time.sleep(0.2)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
