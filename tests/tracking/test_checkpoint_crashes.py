"""A save that is killed or refused, at any point, costs no earlier checkpoint."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from common.files import StorageError
from tracking.checkpoint import latest_checkpoint, read_checkpoint, write_checkpoint

ROOT = Path(__file__).parents[2]


def save(directory: Path, step: int) -> Path:
    tensors = {"w": torch.full((64,), step)}
    return write_checkpoint(directory, f"last-{step:08d}", tensors, {"step": step})


KILLER = """
import os, shutil, signal, sys
from pathlib import Path
import torch
from common import files
from tracking.checkpoint import write_checkpoint

torch.set_num_threads(1)
work = Path(sys.argv[1])

def save(directory, step):
    write_checkpoint(directory, f"last-{step:08d}", {"w": torch.full((64,), step)}, {"step": step})

def die_at(fatal, torn):
    count = 0
    def hook(operation, path):
        nonlocal count
        count += 1
        if count < fatal:
            return
        if torn and operation == "fsync" and path.is_file():
            os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    files.fault_hook = hook

def kill_everywhere(mode, step):
    fatal, status = 0, None
    while status != 0:
        fatal += 1
        directory = work / mode / f"{fatal:03d}"
        shutil.copytree(work / "before", directory)
        child = os.fork()
        if child == 0:
            die_at(fatal, torn=mode == "torn")
            save(directory, step)
            os._exit(0)
        status = os.waitpid(child, 0)[1]

for step in (1, 2):
    save(work / "before", step)
for mode, step in (("killed", 3), ("torn", 3), ("saved_again", 2)):
    kill_everywhere(mode, step)
"""


@pytest.fixture(scope="module")
def killed_saves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory a mode, in it one for every operation of a save: what the SIGKILL there left.

    `torn` halves the file first, as a power cut does to what was not yet flushed; `saved_again`
    saves a step that is already there.
    """
    work = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", KILLER, str(work)], cwd=ROOT, check=True, timeout=100)
    return work


@pytest.mark.parametrize(("mode", "new"), [("killed", 3), ("torn", 3), ("saved_again", 2)])
def test_killed_at_every_operation_of_a_save(killed_saves: Path, mode: str, new: int) -> None:
    *killed, undisturbed = sorted((killed_saves / mode).iterdir())
    assert len(killed) >= 10  # else the hook was not reached
    assert sorted(os.listdir(undisturbed)) == [f"last-{new - 1:08d}", f"last-{new:08d}"]
    for directory in killed:
        found = latest_checkpoint(directory)
        assert found is not None
        step = found.facts["step"]
        assert step in {2, new}
        assert torch.equal(found.tensors["w"], torch.full((64,), step))
        save(directory, 4)
        assert sorted(os.listdir(directory)) == [found.path.name, "last-00000004"], directory


@contextmanager
def limited_file_size(directory: Path) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    """As somebody else where we are root, whom no mode stops."""
    directory.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o755)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (limited_file_size, r"last-00000002: the file size limit is reached: .*ulimit -f"),
        (unwritable, r"last-00000002: permission denied: change the directory's"),
    ],
)
def test_a_refused_save_says_what_to_change_and_costs_nothing(
    refusal: Callable[[Path], AbstractContextManager[None]], message: str
) -> None:
    with tempfile.TemporaryDirectory() as place:  # tmp_path is closed to others than its owner
        Path(place).chmod(0o755)
        directory = Path(place) / "checkpoints"
        save(directory, 1)
        with pytest.raises(StorageError, match=message), refusal(directory):
            write_checkpoint(directory, "last-00000002", {"w": torch.ones(2**20)}, {"step": 2})
        assert os.listdir(directory) == ["last-00000001"]
        assert read_checkpoint(directory / "last-00000001").facts == {"step": 1}


FILLER = """
import os, sys
from pathlib import Path
import torch
from tracking.checkpoint import latest_checkpoint, write_checkpoint

directory = Path(sys.argv[1]) / "checkpoints"
write_checkpoint(directory, "last-00000001", {"w": torch.ones(1000)}, {"step": 1})
try:
    write_checkpoint(directory, "last-00000002", {"w": torch.ones(2**20)}, {"step": 2})
except ValueError as error:
    print(error)
assert os.listdir(directory) == ["last-00000001"], os.listdir(directory)
found = latest_checkpoint(directory)
assert found.facts == {"step": 1} and torch.equal(found.tensors["w"], torch.ones(1000))
"""


def test_a_full_disk_is_explained_and_costs_nothing(tmp_path: Path) -> None:
    """On a tmpfs of 1 MiB, in a mount namespace of its own."""
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*namespace, mount], check=False).returncode:
        pytest.skip("this system lets us mount no small disk")
    filler = [sys.executable, "-c", FILLER, str(tmp_path)]
    command = [*namespace, f'{mount} && exec "$@"', "sh", *filler]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    expected = r"cannot write \S+last-00000002: the disk is full: free some space.*runs_dir=DIR"
    assert re.match(expected, printed)
