import os
import signal
import subprocess
import sys

import pytest

from common.locks import file_sha256, sole_builder, whole_or_absent
from data.prepare import REPOSITORY

HOLD = """
import sys, time
from pathlib import Path
from common.locks import sole_builder, whole_or_absent
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


def test_sha256_is_the_standard_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_directory_appears_whole(tmp_path):
    with whole_or_absent(tmp_path / "made") as staging:
        (staging / "file").write_text("content")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "file").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_leaves_nothing(tmp_path, error):
    def fail():
        with whole_or_absent(tmp_path / "made") as staging:
            (staging / "file").write_text("content")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


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
