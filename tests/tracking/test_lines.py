import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import StorageError
from tracking.lines import JsonLines, read_lines


def write(path: Path, steps: range, start: int = 0) -> None:
    lines = JsonLines(path, start)
    for step in steps:
        lines.append({"step": step, "loss": 1 / (step + 1)})
    lines.close()


def test_a_resume_leaves_neither_gaps_nor_doubled_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(0, 8))
    write(path, range(5, 11), start=5)  # step 5, where the checkpoint was, is logged again
    assert [line["step"] for line in read_lines(path)] == list(range(11))
    assert path.read_text() == "".join(
        json.dumps({"step": s, "loss": 1 / (s + 1)}) + "\n" for s in range(11)
    )


def test_a_line_of_another_kind_at_the_resumed_step_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(0, 6))
    lines = JsonLines(path, 5)
    assert not lines.append({"step": 5, "loss": 0.5})
    assert lines.append({"step": 5, "val/loss_nats": 0.5})
    assert lines.append({"step": 6, "loss": 0.5}) and lines.append({"step": 6, "loss": 0.5})
    lines.close()


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, 60))
def test_a_file_cut_at_any_byte_keeps_its_whole_lines(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    write(path, range(0, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    kept = JsonLines(path, 3)
    n_whole = whole[: len(whole) - cut].count(b"\n")
    assert [line["step"] for line in kept.earlier] == list(range(n_whole))
    kept.append({"step": 9})
    kept.close()
    assert [line["step"] for line in read_lines(path)] == [*range(n_whole), 9]


@pytest.mark.parametrize(
    "damage",
    [
        *(b"\xff\xfe", b"[]", b"{}", b'{"step": "5"}', b'{"step": true}', b"", b"[" * 5000),
        *(b'{"step": 5, "time_s": "x"}', b'{"step": 5, "val/loss_nats": [1]}'),
        *(b'{"step": 5, "val/loss_nats": NaN}', b'{"step": 5, "samples": ["\\ud800"]}'),
    ],
)
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    write(path, range(0, 4))
    lines = path.read_bytes().split(b"\n")
    lines[1] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics.jsonl line 2 is damaged .*fresh=true"):
        JsonLines(path, 3)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics.jsonl must be a plain file.*fresh=true"):
        JsonLines(tmp_path / "metrics.jsonl", 0)


FILL = """
import resource, sys
from pathlib import Path
from common.files import StorageError
from tracking.lines import JsonLines
lines = JsonLines(Path(sys.argv[1]), 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for step in range(100):
        lines.append({"step": step, "samples": ["x" * 90]})
except StorageError as error:
    print(error)
"""


def test_a_file_that_can_grow_no_further_says_so_and_is_repaired(tmp_path):
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FILL, path], capture_output=True, text=True, check=True
    )
    assert "metrics.jsonl: the file size limit is reached" in done.stdout
    assert path.stat().st_size == 1000  # its last line is torn
    write(path, range(8, 12), start=7)
    assert [line["step"] for line in read_lines(path)] == list(range(12))


def test_a_directory_that_is_missing_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((StorageError, NotADirectoryError)):
        JsonLines(tmp_path / "file" / "metrics.jsonl", 0)
