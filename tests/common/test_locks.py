import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import whole_or_absent
from common.locks import acquire, sole_builder

REPOSITORY = Path(__file__).parents[2]

HOLD = """
import sys, time
from pathlib import Path
from common.files import whole_or_absent
from common.locks import sole_builder
directory = Path(sys.argv[1])
with sole_builder(directory), whole_or_absent(directory) as staging:
    (staging / "half").write_text("half")
    print("holding", flush=True)
    time.sleep(60)
"""
WAIT = """
import sys
from pathlib import Path
from common.locks import sole_builder
with sole_builder(Path(sys.argv[1])):
    print("had it", flush=True)
"""


def start(program, directory):
    return subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_second_process_says_who_is_first_and_gets_its_turn_when_that_is_killed(tmp_path):
    directory = tmp_path / "tokens"
    holder = start(HOLD, directory)
    assert holder.stdout.readline() == "holding\n"
    waiter = start(WAIT, directory)
    said = waiter.stderr.readline()
    assert said.startswith(f"waiting for process {holder.pid} on ")
    assert said.endswith(f"which makes {directory}\n")

    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert waiter.communicate(timeout=30)[0] == "had it\n"

    # What the killed one left is no obstacle, and gone after the next try.
    assert (tmp_path / "tokens.partial" / "half").exists()
    with sole_builder(directory), whole_or_absent(directory) as staging:
        (staging / "file").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "tokens"]
    assert [path.name for path in directory.iterdir()] == ["file"]


class BusyError(Exception):
    pass


def refuse(holder):
    raise BusyError(holder)


def test_a_lock_is_refused_with_its_holder_and_free_when_closed(tmp_path):
    lock = acquire(tmp_path / "made" / "lock", refuse, ", which tests")
    with pytest.raises(BusyError, match=rf"^process {os.getpid()} on .* since .*, which tests$"):
        acquire(tmp_path / "made" / "lock", refuse)
    os.close(lock)
    os.close(acquire(tmp_path / "made" / "lock", refuse))


def test_a_lock_that_moved_away_guards_nothing(tmp_path):
    old = acquire(tmp_path / "run" / "lock", refuse)
    (tmp_path / "run").rename(tmp_path / "moved")
    new = acquire(tmp_path / "run" / "lock", refuse)
    with pytest.raises(BusyError):
        acquire(tmp_path / "run" / "lock", refuse)
    os.close(old)
    os.close(new)


def test_who_waits_for_a_lock_that_moves_gets_the_one_in_its_place(tmp_path):
    file = tmp_path / "run" / "lock"
    held = [acquire(file, refuse)]

    def move(_holder):
        file.parent.rename(tmp_path / "moved")
        os.close(held.pop())

    lock = acquire(file, move)
    with pytest.raises(BusyError):
        acquire(file, refuse)
    os.close(lock)


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "directory"])
def test_only_a_plain_file_is_locked_and_nothing_else_is_written_to(tmp_path, kind):
    precious = tmp_path / "precious"
    precious.write_text("content")
    file = tmp_path / "lock"
    make = {
        "link": lambda: file.symlink_to(precious),
        "dangling": lambda: file.symlink_to(tmp_path / "nowhere"),
        "pipe": lambda: os.mkfifo(file),
        "directory": file.mkdir,
    }
    make[kind]()
    with pytest.raises(UserError, match=r"lock must be a plain file: .* remove it"):
        acquire(file, refuse)
    assert precious.read_text() == "content"
    assert not (tmp_path / "nowhere").exists()
