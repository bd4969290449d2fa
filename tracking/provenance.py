"""Where a run's numbers come from: code, versions, device."""

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ops import native

ROOT = Path(__file__).resolve().parents[1]
# What a number can depend on; records, trackers and messages are left out.
_SUFFIXES = (".py", ".cpp", ".h")
_SOURCES = ("train.py", "common", "model", "dropout", "ops", "data", "training")
_PACKAGES = ("torch", "numpy", "hydra-core", "datasets", "tiktoken", "safetensors", "wandb")


def code_hash(root: Path = ROOT) -> str:
    """sha256 over the names and bytes of every source file that makes the numbers."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        path = root / source
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in (f for f in files if f.suffix in _SUFFIXES):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def code_facts(root: Path = ROOT) -> dict[str, Any]:
    """Commit, whether tracked files outside results/ differ from it, and the hash of the code.

    Commit and dirty are None where the code is no git checkout of its own.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return {"commit": None, "dirty": None, "code_hash": code_hash(root)}
    # results/ is left out: a sweep's first record would mark its later ones dirty.
    changes = _git(root, "status", "--porcelain", "--", ".", ":!results")
    commit = _git(root, "rev-parse", "HEAD")
    dirty = None if changes is None else changes != ""
    return {"commit": commit, "dirty": dirty, "code_hash": code_hash(root)}


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


def device_facts(device: torch.device) -> dict[str, Any]:
    """Kind and name of the device, how many threads the CPU's part uses, whether it has our kernels."""
    facts = {"kind": device.type, "threads": torch.get_num_threads()}
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
