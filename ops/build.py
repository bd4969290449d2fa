"""The kernels' shared library: compiled once, into a cache that nobody else can write to.

Whoever can change a library that we load runs code as us. So the cache is a directory, and a library
a plain file, of this user's own that no other may write; and a library is loaded only where its
SHA-256 is the one written beside it, for a file cut short would end the process with SIGBUS.
"""

import contextlib
import hashlib
import logging
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = Path(__file__).with_name("kernels")
COMPILE = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp"),
    *("-fno-exceptions", "-fno-strict-aliasing", "-Wno-psabi", "-fPIC", "-c"),
)
# No OpenMP library of our own: its threads would fight with those of torch's, which is loaded already.
LINK = ("-shared", "-nodefaultlibs", "-lm", "-lc")
LIMIT_S = 30.0  # for each thing that the compiler is asked, which takes it less than one
QUIET_S = 5.0  # after which a person is told what they wait for
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
log = logging.getLogger(__name__)


class NoCompilerError(RuntimeError):
    """There is nothing to compile with here, as on many machines."""


def kernels() -> Path:
    """The library's file, compiled where the cache has none for these sources, compiler and CPU.

    NoCompilerError without a compiler; RuntimeError where it fails, hangs, or the cache is not ours
    alone; OSError where the cache cannot be written.
    """
    if sys.platform != "linux":
        raise NoCompilerError(f"they are compiled on Linux alone, and this is {sys.platform}")
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    if not compiler or shutil.which(compiler[0]) is None:
        raise NoCompilerError(f"there is no compiler {' '.join(compiler)}; install g++ or set CXX")
    library = _cache_directory() / f"kernels-{_key(compiler)}.so"
    if not _is_whole(library):
        if library.exists():
            log.warning("%s is not what was compiled into it: compiling it anew", library)
        _compile(compiler, library)
    return library


def _cache_directory() -> Path:
    """Made where it is missing. RuntimeError where another user could change what lies in it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "learned-dropout-gpt"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or not _is_ours_alone(status):
        raise RuntimeError(
            f"{directory} must be a directory of your own that no one else can write to, because "
            "code is loaded from it: remove it, or set XDG_CACHE_HOME to another place"
        )
    return directory


def _is_ours_alone(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & OTHERS_WRITE


def _key(compiler: list[str]) -> str:
    """A name for what the library depends on, the compiler's version among it."""
    version = _run([*compiler, "--version"], KERNELS)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = [line for line in lines if line.lower().startswith(("flags", "features"))][:1]
    files = sorted(file for file in KERNELS.iterdir() if file.suffix in (".cpp", ".h"))
    sources = [(file.name, file.read_bytes()) for file in files]
    facts = (sources, compiler, version, COMPILE, LINK, cpu)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _is_whole(library: Path) -> bool:
    """Whether the library is there, ours alone, and has the checksum written beside it."""
    try:
        written = _read_ours(_checksum_file(library)).decode()
        return hashlib.sha256(_read_ours(library)).hexdigest() == written
    except (OSError, ValueError):
        return False


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _read_ours(path: Path) -> bytes:
    """The bytes of a plain file of ours alone; OSError where it is another thing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _is_ours_alone(status):
            raise PermissionError(f"{path} is not a plain file of this user's alone")
        return file.read()


def _compile(compiler: list[str], library: Path) -> None:
    """Compile beside `library` and move into place, so that two processes can do so at once.

    Of two that move at once, the checksum may be the other's: the next start then compiles again.
    """
    log.info("compiling the kernels for this CPU, once: a few seconds")
    sources = sorted(map(str, KERNELS.glob("*.cpp")))
    objects = [f"{Path(source).stem}.o" for source in sources]
    with tempfile.TemporaryDirectory(dir=library.parent) as directory:
        scratch = Path(directory)
        for source in sources:
            _run([*compiler, *COMPILE, source], scratch)
        _run([*compiler, *objects, *LINK, "-o", library.name], scratch)
        new = scratch / library.name
        checksum = _checksum_file(new)
        checksum.write_text(hashlib.sha256(new.read_bytes()).hexdigest())
        for file in (new, checksum):
            file.chmod(0o700)
            file.replace(library.with_name(file.name))


def _run(command: list[str], directory: Path) -> str:
    """What a command says. RuntimeError where it fails, or takes longer than LIMIT_S.

    A process group of its own, so that nothing that it started outlives it.
    """
    with subprocess.Popen(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as process:
        try:
            said = _wait(process, shlex.join(command))
        except BaseException as error:  # Ctrl-C too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise RuntimeError(
                f"{shlex.join(command)} was stopped after {LIMIT_S:g} s: set CXX to a "
                "compiler that works"
            ) from None
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed: {said[-500:]}")
    return said


def _wait(process: subprocess.Popen[bytes], name: str) -> str:
    """What a process said, once it has ended; TimeoutExpired after LIMIT_S."""
    try:
        said, _ = process.communicate(timeout=QUIET_S)
    except subprocess.TimeoutExpired:
        left_s = LIMIT_S - QUIET_S
        log.warning("still compiling, for %.0f s more at most: %s", left_s, name)
        said, _ = process.communicate(timeout=left_s)
    return said.decode(errors="replace").strip()
