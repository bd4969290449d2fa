"""Where a run's numbers come from: the code that it used, versions, device."""

import ast
import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from common.equal_code import oldest
from ops import build, native

ROOT = Path(__file__).resolve().parents[1]
# What a number can depend on; records, trackers and messages are left out.
SOURCES = ("train.py", "common/streams.py", "data/", "dropout/", "model/", "ops/", "training/")
_PACKAGES = ("torch", "numpy", "hydra-core", "datasets", "tiktoken", "safetensors", "wandb")
# A string or character literal, kept; or a comment, which goes.
_CPP_TOKENS = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*|/\*.*?\*/""", re.DOTALL)


def used_files(root: Path = ROOT) -> dict[str, str]:
    """The files behind a run's numbers that this process has imported, each with its `code_digest`.

    `train.py`, and of SOURCES the modules that are loaded; the kernels too where they are compiled.
    """
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    files = {root / "train.py", *(Path(file).resolve() for file in loaded if file)}
    if native.library() is not None:
        files |= {file for file in build.KERNELS.iterdir() if file.suffix in (".cpp", ".h")}
    names = {f.relative_to(root).as_posix(): f for f in files if f.is_relative_to(root)}
    return {n: code_digest(names[n]) for n in sorted(names) if n.startswith(SOURCES)}


def changed_files(files: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """Those of a run's `used_files` that compute something else now, or are gone."""
    return [
        name
        for name, digest in files.items()
        if not (root / name).is_file()
        or oldest(name, code_digest(root / name)) != oldest(name, digest)
    ]


def code_digest(path: Path) -> str:
    """16 hexadecimal digits of the sha256 of what a source file computes.

    Of Python the syntax tree without docstrings: comments and formatting are not in it. Of C++ the text
    without comments and white space.
    """
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@cache
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        code = json.dumps(_plain_tree(ast.parse(text)))
    else:
        code = "".join(_CPP_TOKENS.sub(lambda found: found[1] or " ", text).split())
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _plain_tree(node: Any) -> Any:
    """A syntax tree as lists and texts, the same in every version of Python that parses it alike."""
    if isinstance(node, list):
        return [_plain_tree(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    return [type(node).__name__, *_fields(node)]


def _fields(node: ast.AST) -> Iterator[Any]:
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and _is_docstring(node, value):
            value = value[1:]
        if value not in (None, []):  # newer versions have more fields, empty where unused
            yield [name, _plain_tree(value)]


def _is_docstring(node: ast.AST, body: list[ast.stmt]) -> bool:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None


def code_facts(root: Path = ROOT) -> dict[str, Any]:
    """Commit, whether tracked files outside results/ differ from it, and the files that are used.

    Commit and dirty are None where the code is no git checkout of its own.
    """
    files = used_files(root)
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return {"commit": None, "dirty": None, "files": files}
    # results/ is left out: a sweep's first record would mark its later ones dirty.
    changes = _git(root, "status", "--porcelain", "--", ".", ":!results")
    commit = _git(root, "rev-parse", "HEAD")
    dirty = None if changes is None else changes != ""
    return {"commit": commit, "dirty": dirty, "files": files}


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a number could depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["torch"] = str(torch.__version__)  # with its build, as in 2.13.0+cpu
    found["cuda"] = torch.version.cuda
    return found


def device_facts(device: torch.device, ranks: int = 1) -> dict[str, Any]:
    """Kind and name of the device, how many ranks and threads, whether the CPU has our kernels."""
    facts = {"kind": device.type, "ranks": ranks, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        return facts | {"name": torch.cuda.get_device_name(device)}
    return facts | {"name": _cpu_name(), "compiled_kernels": native.library() is not None}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    # Reading must not take the index's lock, which another git may be waiting for.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
