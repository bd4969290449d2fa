"""What is loaded as code was compiled here, by this user, and is whole."""

import ctypes
import hashlib
import logging
import os
import re
import shlex
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
    """One that makes other bytes each time, whose version is $SAID, and that notes what it is asked."""
    body = (
        f'echo "$PWD $*" >> {shlex.quote(str(tmp_path / "asked"))}\n'
        'if [ "$1" = --version ]; then echo "${SAID-1.0}"; exit; fi\n'
        'while [ $# -gt 0 ]; do [ "$1" = -o ] && date +%s%N > "$2"; shift; done'
    )
    monkeypatch.setenv("CXX", str(script(tmp_path / "c++", body)))


def test_a_library_is_compiled_once_and_is_ours_alone(cache, compiler, caplog):
    with caplog.at_level(logging.INFO):
        library = build.kernels()
    assert re.fullmatch(r"kernels-[0-9a-f]{16}\.so", library.name)
    content = library.read_bytes()
    assert build.kernels() == library and library.read_bytes() == content
    checksum = library.with_suffix(".sha256")
    assert checksum.read_text() == hashlib.sha256(content).hexdigest()
    assert {path.name for path in cache.iterdir()} == {library.name, checksum.name}
    for path in (cache, library, checksum):
        assert path.stat().st_mode & 0o777 == 0o700
    (record,) = caplog.records
    assert record.getMessage() == "compiling the kernels for this CPU, once: a few seconds"


def test_nothing_is_written_where_one_stands(cache, compiler, tmp_path):
    build.kernels()
    lines = (tmp_path / "asked").read_text().splitlines()
    version, *compiling = (Path(line.split()[0]) for line in lines)
    assert version == build.KERNELS
    assert {place.parent for place in compiling} == {cache}


def test_without_a_word_it_is_gxx_and_in_the_users_cache(compiler, monkeypatch, tmp_path):
    (tmp_path / "c++").rename(tmp_path / "g++")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("CXX", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert build.kernels().parent == tmp_path / "home/.cache/learned-dropout-gpt"


@pytest.mark.parametrize(
    ("words", "platform", "said"),
    [
        ("no-such -x", "linux", "there is no compiler no-such -x; install g++ or set CXX"),
        (" ", "linux", "there is no compiler ; install g++ or set CXX"),
        ("g++", "darwin", "they are compiled on Linux alone, and this is darwin"),
    ],
)
def test_where_there_is_nothing_to_compile_with_the_error_says_so(
    cache, monkeypatch, words, platform, said
):
    monkeypatch.setenv("CXX", words)
    monkeypatch.setattr(build.sys, "platform", platform)
    with pytest.raises(build.NoCompilerError) as raised:
        build.kernels()
    assert str(raised.value) == said


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
    assert record.getMessage() == (f"{library} is not what was compiled into it: compiling it anew")
    assert library.read_bytes() not in (before, b"foreign")
    assert build._is_whole(library)


def test_what_is_not_ours_alone_is_named(tmp_path):
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o666)
    with pytest.raises(PermissionError, match=f"{path} is not a plain file of this user's alone"):
        build._read_ours(path)


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
    assert record.getMessage().endswith(
        f"{cache} must be a directory of your own that no one else can write to, because code is "
        "loaded from it: remove it, or set XDG_CACHE_HOME to another place"
    )


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


TWO_CORES = "MHz : 1\nflags : sse\nMHz : 1\nflags : sse"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"a.cpp": "int x;"}, False),
        ({}, {"a.h": "int x;"}, False),
        ({}, {"notes.md": "x"}, True),
        ({}, {"cpuinfo": "MHz : 2\nflags : sse"}, True),
        ({}, {"cpuinfo": "MHz : 1\nflags : avx"}, False),
        ({"cpuinfo": "Features : neon"}, {"cpuinfo": "Features : sve"}, False),
    ],
    ids=["source", "header", "note", "cores", "flags", "features"],
)
def test_other_sources_and_another_cpu_are_another_library(
    cache, compiler, monkeypatch, tmp_path, one, other, same
):
    sources = tmp_path / "sources"
    sources.mkdir()
    monkeypatch.setattr(build, "KERNELS", sources)
    ours = {"/proc/cpuinfo": sources / "cpuinfo"}
    monkeypatch.setattr(build, "Path", lambda path: ours.get(path) or Path(path))
    names = set()
    for changes in (one, other):
        files = {"a.cpp": "", "a.h": "", "notes.md": "", "cpuinfo": TWO_CORES} | changes
        for name, text in files.items():
            (sources / name).write_text(text)
        names.add(build.kernels().name)
    assert len(names) == (1 if same else 2)


def test_what_a_compiler_that_fails_says_last_is_in_the_error(cache, monkeypatch, tmp_path):
    last = "x" * 494 + ": wrong"
    body = f"printf '\\377 much before it, and %s\\n' '{last}' >&2; exit 1"
    command = script(tmp_path / "c++", body)
    monkeypatch.setenv("CXX", str(command))
    with pytest.raises(RuntimeError) as raised:
        build.kernels()
    assert str(raised.value) == f"{command} --version failed: {last[-500:]}"


def test_a_compiler_reads_nothing_of_what_is_typed(tmp_path):
    read, write = os.pipe()
    before = os.dup(0)
    try:
        os.write(write, b"typed")
        os.close(write)
        os.dup2(read, 0)
        assert build._run(["cat"], tmp_path) == ""
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read)


@pytest.mark.parametrize("goes_on", [True, False])
def test_ctrl_c_ends_the_compiler_too(cache, monkeypatch, tmp_path, goes_on):
    pid = tmp_path / "pid"
    body = f"echo $$ > {pid}; {'exec sleep 20' if goes_on else 'exit'}"
    monkeypatch.setenv("CXX", str(script(tmp_path / "c++", body)))

    def interrupted(process, name):
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        if not goes_on:
            process.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.kernels()
    assert not is_running(int(pid.read_text()))


@pytest.mark.parametrize("hangs_at", ["--version", "-O3"])
def test_a_compiler_that_hangs_is_stopped_with_all_that_it_started(
    cache, monkeypatch, tmp_path, hangs_at, caplog
):
    pid = tmp_path / "pid"
    body = f'case "$*" in *{hangs_at}*) sleep 60 & echo $! > {pid}; wait;; esac'
    monkeypatch.setenv("CXX", str(script(tmp_path / "c++", body)))
    monkeypatch.setattr(build, "LIMIT_S", 1.1)
    monkeypatch.setattr(build, "QUIET_S", 0.5)
    stopped = r"c\+\+ .* was stopped after 1\.1 s: set CXX to a compiler that works$"
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=stopped):
        build.kernels()
    assert time.monotonic() - start < 10
    (record,) = caplog.records
    said = f"still compiling, for 1 s more at most: {tmp_path / 'c++'} "
    assert record.getMessage().startswith(said)
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
