"""Kernels are compiled once, and everything works where they cannot be."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ops import build, native
from ops.attention import causal_attention

REPOSITORY = Path(__file__).resolve().parents[2]
has_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler here")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No library loaded yet, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    native.multiplies_in.cache_clear()
    yield tmp_path / "learned-dropout-gpt"
    native.library.cache_clear()
    native.multiplies_in.cache_clear()


@has_compiler
def test_compiled_once_into_the_cache_and_nothing_left_beside_it(fresh):
    assert native.library() is not None
    times = {file.name: file.stat().st_mtime_ns for file in fresh.iterdir()}
    assert {Path(name).suffix for name in times} == {".so", ".sha256"} and len(times) == 2
    native.library.cache_clear()
    assert native.library() is not None
    assert {file.name: file.stat().st_mtime_ns for file in fresh.iterdir()} == times


@pytest.mark.slow
@has_compiler
def test_two_processes_compile_at_once(fresh):
    command = [sys.executable, "-c", "from ops import native; assert native.library()"]
    both = [subprocess.Popen(command, cwd=REPOSITORY, env=dict(os.environ)) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list(fresh.iterdir())) == 2


def test_kernels_warn_of_nothing(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no compiler here")
    sources = map(str, build.KERNELS.glob("*.cpp"))
    # psabi: how vectors wider than the machine's are passed, which nothing outside a file sees
    command = [compiler, *build.COMPILE, "-Wall", "-Wextra", "-Wno-psabi", *sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CXX", "no-such-compiler", "no compiler no-such-compiler; install g++ or set CXX"),
        ("CXX", "false", "failed"),
        ("CXX", " ", "no compiler"),
        ("CXX", "g++ '", "No closing quotation"),
        ("XDG_CACHE_HOME", "/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_without_them_attention_is_the_same_and_the_log_says_why(
    fresh, monkeypatch, caplog, variable, value, said
):
    monkeypatch.setenv(variable, value)
    qkv = torch.randn(2, 10, 24)
    with caplog.at_level(logging.INFO, logger="ops.native"):
        assert native.library() is None
        assert causal_attention(qkv, 2).equal(causal_attention(qkv, 2, fused=False))
    (record,) = caplog.records
    assert said in record.getMessage()
    assert record.levelno == (logging.INFO if "no compiler" in said else logging.WARNING)
    assert not native.multiplies_in(torch.float32)
