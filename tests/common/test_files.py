"""Whole files, and refusals of the disk that say what to change."""

import errno
import json
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from common import files
from common.files import (
    StorageError,
    explained,
    read_regular,
    remove_leftovers,
    sha256_of,
    to_json,
    whole_or_absent,
    write_atomically,
)


@pytest.mark.parametrize("operation", ["write", "fsync", "rename"])
def test_a_write_that_is_cut_off_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, '{"step": 1}')

    def cut_off(name: str, _path: Path) -> None:
        if name == operation:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "fault_hook", cut_off)
    message = r"record.json: the disk is full.*runs_dir=DIR"
    with pytest.raises(StorageError, match=message), explained(path):
        write_atomically(path, '{"step": 2}')
    assert json.loads(path.read_text()) == {"step": 1}
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_rename_is_flushed_with_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(files, "fault_hook", lambda name, path: seen.append((name, path.name)))
    write_atomically(tmp_path / "a", "text")
    temporary = seen[0][1]
    assert temporary.startswith(files.TEMPORARY)
    assert seen == [
        ("write", temporary),
        ("fsync", temporary),
        ("rename", "a"),
        ("fsync", tmp_path.name),
    ]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EFBIG, r"ulimit -f"),
        (errno.EACCES, "permission denied: change the directory's owner or mode"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "File name too long"),
    ],
)
def test_every_refusal_names_the_path_and_the_remedy(number: int, remedy: str) -> None:
    wrapped = SafetensorError(f"Error while serializing: I/O error: (os error {number})")
    for error in (OSError(number, os.strerror(number)), wrapped):
        with (
            pytest.raises(StorageError, match=rf"^cannot write x: .*{remedy}.*\(runs_dir=DIR\)"),
            explained(Path("x")),
        ):
            raise error


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), explained(Path("x")):
        raise ZeroDivisionError
    with pytest.raises(SafetensorError), explained(Path("x")):
        raise SafetensorError("InvalidHeader")


def test_json_has_no_nan() -> None:
    value = {"loss": float("nan"), "curve": [1.5, float("inf")], 3: (1, -0.1)}
    assert json.loads(to_json(value)) == {"loss": None, "curve": [1.5, None], "3": [1, -0.1]}


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{files.TEMPORARY}file").touch()
    (tmp_path / f"{files.TEMPORARY}directory" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{files.TEMPORARY}link").symlink_to(tmp_path / "elsewhere")
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["elsewhere"]


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    os.mkfifo(tmp_path / "pipe")  # to open it the careless way would wait for ever
    assert read_regular(tmp_path / "plain", max_bytes=5) == b"12345"
    with pytest.raises(ValueError, match="at most 4 bytes"):
        read_regular(tmp_path / "plain", max_bytes=4)
    for name in ("link", "pipe", "."):
        with pytest.raises(ValueError, match="must be a plain file"):
            read_regular(tmp_path / name, max_bytes=5)


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    with whole_or_absent(tmp_path / "made") as staging:
        (staging / "file").write_text("content")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "file").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with whole_or_absent(tmp_path / "made") as staging:
            (staging / "file").write_text("content")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []
