"""What is loaded as code was compiled here, by this user, and is whole."""

import ctypes
import hashlib
import logging
import os
import time
from pathlib import Path

import pytest

from ops import build, native


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Where the cache will be; not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "learned-dropout-gpt"


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return path


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """One that makes other bytes each time, and whose version is $SAID."""
    body = (
        'if [ "$1" = --version ]; then echo "${SAID-1.0}"; exit; fi\n'
        'while [ $# -gt 0 ]; do [ "$1" = -o ] && date +%s%N > "$2"; shift; done'
    )
    monkeypatch.setenv("CXX", str(script(tmp_path / "c++", body)))


def test_a_library_is_compiled_once_and_is_ours_alone(cache, compiler):
    library = build.kernels()
    content = library.read_bytes()
    assert build.kernels() == library and library.read_bytes() == content
    checksum = library.with_suffix(".sha256")
    assert checksum.read_text() == hashlib.sha256(content).hexdigest()
    assert {path.name for path in cache.iterdir()} == {library.name, checksum.name}
    for path in (cache, library, checksum):
        assert path.stat().st_mode & 0o777 == 0o700


def cut_short(library):
    os.truncate(library, library.stat().st_size // 2)


def emptied(library):
    os.truncate(library, 0)


def altered(library):
    content = bytearray(library.read_bytes())
    content[-1] ^= 1
    library.write_bytes(content)


def planted_with_its_checksum_where_others_may_write(library):
    library.write_bytes(b"foreign")
    library.with_suffix(".sha256").write_text(hashlib.sha256(b"foreign").hexdigest())
    library.chmod(0o777)


def checksum_that_others_may_write(library):
    library.write_bytes(b"foreign")
    checksum = library.with_suffix(".sha256")
    checksum.write_text(hashlib.sha256(b"foreign").hexdigest())
    checksum.chmod(0o666)


def a_link_to_another_file(library):
    library.rename(library.with_name("elsewhere"))
    library.symlink_to("elsewhere")


def a_pipe(library):
    library.unlink()
    os.mkfifo(library)


def without_a_checksum(library):
    library.with_suffix(".sha256").unlink()


def checksum_that_is_no_text(library):
    library.with_suffix(".sha256").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        emptied,
        altered,
        planted_with_its_checksum_where_others_may_write,
        checksum_that_others_may_write,
        a_link_to_another_file,
        a_pipe,
        without_a_checksum,
        checksum_that_is_no_text,
    ],
)
def test_any_other_file_in_its_place_is_compiled_anew(cache, compiler, damage, caplog):
    library = build.kernels()
    before = library.read_bytes()
    damage(library)
    assert build.kernels() == library
    (record,) = caplog.records
    assert "compiling it anew" in record.getMessage()
    assert library.read_bytes() not in (before, b"foreign")
    assert build._is_whole(library)


def test_a_file_of_another_owner_is_compiled_anew(cache, compiler, monkeypatch):
    library = build.kernels()
    before = library.read_bytes()
    fstat = os.fstat

    def of_another(descriptor):
        status = list(fstat(descriptor))
        status[4] += 1  # st_uid
        return os.stat_result(status)

    with monkeypatch.context() as patched:
        patched.setattr(build.os, "fstat", of_another)
        build.kernels()
    assert library.read_bytes() != before


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_nothing_is_loaded_from_a_directory_that_others_may_write(
    cache, compiler, monkeypatch, mode, caplog
):
    build.kernels()
    cache.chmod(mode)
    loaded = []
    monkeypatch.setattr(ctypes, "CDLL", loaded.append)
    native.library.cache_clear()
    assert native.library() is None
    native.library.cache_clear()
    assert loaded == []
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{cache} must be a directory of your own" in record.getMessage()


def test_a_directory_behind_a_link_or_of_another_owner_is_refused(cache, compiler, monkeypatch):
    build.kernels()
    with monkeypatch.context() as patched:
        patched.setattr(build.os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(RuntimeError, match="must be a directory of your own"):
            build.kernels()
    cache.rename(cache.with_name("elsewhere"))
    cache.symlink_to("elsewhere")
    with pytest.raises(RuntimeError, match="must be a directory of your own"):
        build.kernels()


def test_another_version_of_the_compiler_is_another_library(cache, compiler, monkeypatch):
    one = build.kernels()
    monkeypatch.setenv("SAID", "2.0")
    two = build.kernels()
    assert one != two
    monkeypatch.setenv("SAID", "1.0")
    assert build.kernels() == one


@pytest.mark.parametrize("hangs_at", ["--version", "-O3"])
def test_a_compiler_that_hangs_is_stopped_with_all_that_it_started(
    cache, monkeypatch, tmp_path, hangs_at, caplog
):
    pid = tmp_path / "pid"
    body = f'case "$*" in *{hangs_at}*) sleep 60 & echo $! > {pid}; wait;; esac'
    monkeypatch.setenv("CXX", str(script(tmp_path / "c++", body)))
    monkeypatch.setattr(build, "LIMIT_S", 1.0)
    monkeypatch.setattr(build, "QUIET_S", 0.2)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"was stopped after 1 s: set CXX"):
        build.kernels()
    assert time.monotonic() - start < 10
    (record,) = caplog.records
    assert record.getMessage().startswith("still compiling, for 1 s more at most: ")
    assert not is_running(int(pid.read_text()))
    assert list(cache.iterdir()) == []


def is_running(pid: int) -> bool:
    """Whether it runs, or ends within a second; a process that nobody has waited for does not."""
    for _ in range(20):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state in "ZX":
            return False
        time.sleep(0.05)
    return True


def test_thirty_seconds_at_most():
    assert build.LIMIT_S <= 30
