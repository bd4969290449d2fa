"""Kernels are compiled once, and everything works where they cannot be."""

import ctypes
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


@has_compiler
def test_a_kernel_reads_plain_tensors_of_a_cpu_outside_a_trace(monkeypatch):
    x = torch.zeros(3)
    assert native.usable(x)
    assert not native.usable(x.to("meta"))
    assert not native.usable(torch.nn.Parameter(x))  # no more than a fake tensor: a type of its own
    with native.without_kernels():
        assert not native.usable(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not native.usable(x)


@has_compiler
def test_a_kernel_is_found_by_its_name_and_dtype():
    assert native.function("dropout", torch.bfloat16).__name__ == "dropout_bfloat16"


class Library(dict):
    """As `ctypes` hands one out: a function by its name, whose types are not known."""

    def __getattr__(self, name):
        return self.setdefault(name, SimpleNamespace(argtypes=None))


NUMBERS = {
    "int": ctypes.c_int, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
    "float": ctypes.c_float, "double": ctypes.c_double,
}  # fmt: skip


def types_in_the_sources():
    """Of every kernel's arguments, by its name; ## stands for each dtype."""
    for path in build.KERNELS.glob("*.cpp"):
        source = path.read_text().replace("\\\n", " ")
        for name, arguments in re.findall(r'extern "C" \w+ (\w+(?:##suffix)?)\(([^)]+)\)', source):
            types = [
                ctypes.c_void_p if "*" in argument else NUMBERS[argument.split()[0]]
                for argument in arguments.split(",")
            ]
            for dtype in ("float32", "bfloat16"):
                yield name.replace("##suffix", dtype), types


@pytest.mark.parametrize("amx", [0, 1])
def test_kernels_are_called_with_the_types_of_their_sources(amx):
    library = Library(attention_has_bfloat16=lambda: amx)
    assert native._declare(library) is library
    del library["attention_has_bfloat16"]
    beyond = {
        "attention_forward_bfloat16",
        "attention_backward_bfloat16",
        "weight_gradient_bfloat16",
    }
    assert {name: function.argtypes for name, function in library.items()} == {
        name: types for name, types in types_in_the_sources() if amx or name not in beyond
    }


def test_seeds_are_those_that_records_were_made_from_wherever_tensors_are_made():
    torch.manual_seed(0)
    with torch.device("meta"):
        assert [native.draw_seed() for _ in range(2)] == [900450186894289456, 3969543146641149121]
