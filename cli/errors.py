"""What a person reads when a command cannot be carried out: a line or two, and an exit code.

A misspelt choice, group, key or value, and a ValueError raised by this project, are the person's to
mend: `error: ...`, exit code 2. A machine that is out of space or memory: `error: ...`, 1. Anything
else is a bug of ours and keeps its traceback; with HYDRA_FULL_ERROR=1 in the environment all do.
"""

import errno
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from cli.rows import as_swept
from cli.rules import is_place
from cli.spelling import FOLDERS, groups, renamed, unknown_choice, unknown_key
from common.errors import (
    FAILED,
    IN_USE,
    INTERRUPTED,
    MISTAKEN,
    NON_FINITE,
    InUseError,
    LostRankError,
    NonFiniteError,
    UserError,
)
from common.files import StorageError
from common.processes import end_with

# What the machine lacks; any other refusal of the disk is of a path that the person chose.
MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE,
    errno.EACCES, errno.EPERM, errno.EROFS,
}  # fmt: skip

# For so long another rank of torchrun's than the first lets it speak, and torchrun end this one, before
# it says what is wrong: mostly both have met the same.
FIRST_RANK_SPEAKS_S = 3.0

# As the person set it: `run_cli` borrows the variable.
WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"


def run_cli(main: Callable[[], object]) -> None:
    """Call `main`, an entry point; print what the person can mend, and exit."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with(os.getppid(), signal.SIGKILL)  # workers of torchrun are in no group of its own
    if WANTS_TRACEBACK:
        main()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions on and prints nothing
    try:
        with mistakes_told():
            check_hydra(sys.argv[1:])
            sys.argv[1:] = as_swept(sys.argv[1:])
            main()
    except KeyboardInterrupt:  # before or after the steps, which see to it themselves
        print("interrupted; the same command goes on or begins again", file=sys.stderr)
        if any(thread.name == "hub-reader" for thread in threading.enumerate()):
            sys.stdout.flush()
            os._exit(INTERRUPTED)  # Python's own end would abort: Arrow's thread waits in Python
        sys.exit(INTERRUPTED)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


@contextmanager
def mistakes_told() -> Iterator[None]:
    """Exit with a line for what the person can mend. Within a job, before Hydra adds its own."""
    try:
        yield
    except Exception as error:
        if rank := int(os.environ.get("RANK", 0)):
            time.sleep(FIRST_RANK_SPEAKS_S)
        told = explain(error)
        if told is None or WANTS_TRACEBACK:
            raise
        message, code = told
        print(f"error: {message}" + f" (rank {rank})" * (rank > 0), file=sys.stderr)
        sys.exit(code)


def check_hydra(arguments: Iterable[str]) -> None:
    """Raise UserError where an argument would choose Hydra's own parts: they are this project's."""
    for argument in arguments:
        key, _, value = argument.lstrip("+~").partition("=")
        mapping = key.startswith("hydra") and value.lstrip().startswith("{")  # of any of its parts
        if mapping or re.match(r"hydra([./](callbacks|.*_target_)|$)", key):
            raise UserError(
                f"{argument}: Hydra's own parts are not for choosing; what may be set there is "
                "hydra.launcher.workers, hydra.sweep.dir and hydra.mode"
            )
        if key in ("hydra.run.dir", "hydra.sweep.dir") and not is_place(value):
            raise UserError(f"{argument} must be a directory, or a path on which to make one")


def explain(error: BaseException) -> tuple[str, int] | None:
    """A line or two and the exit code; None where it is a bug of ours."""
    if isinstance(error, InUseError):
        return str(error), IN_USE
    if isinstance(error, NonFiniteError):
        return str(error), NON_FINITE
    if isinstance(error, LostRankError):
        return str(error), FAILED
    if (message := _explain_machine(error)) is not None:
        return message, FAILED
    if (message := _explain_mistake(error)) is not None:
        return message, MISTAKEN
    return None


def _explain_mistake(error: BaseException) -> str | None:
    """What the person mistook and what is valid; None where it is no mistake of theirs."""
    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_choice(error)
    if isinstance(error, InstantiationException):
        return _explain_mistake(cause) if cause is not None else None
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {_brief(error.message)}"
    if isinstance(error, HydraException):
        return _explain_override(str(error), cause)
    if isinstance(error, InterpolationResolutionError | ValidationError):
        return _explain_interpolation(_brief(str(error)))
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return _explain_group_value(str(error))
    if isinstance(error, ValueError) and _raised_by_torchs_optimizer(error):
        return f"optimizer: {error}"
    return str(error) if isinstance(error, UserError) else None


def _raised_by_torchs_optimizer(error: BaseException) -> bool:
    """Its options are torch's own, and so are its words for a wrong one."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "/torch/optim/" in Path(frames[-1].filename).as_posix()


def _explain_machine(error: BaseException) -> str | None:
    """What the machine lacks and what helps; None where it lacks nothing."""
    if isinstance(error, StorageError) and error.errno in MACHINE:
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error}: free some space, then the same command goes on from the last checkpoint"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error}: make it writable, or run from a directory that is"
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out_of_memory or "can't allocate memory" in str(error):
        return (
            "out of memory: a smaller micro_batch_size (a divisor of batch_size) or "
            "evaluate.batch_size needs less"
        )
    return None


def _explain_override(message: str, cause: BaseException | None) -> str:
    """Hydra's and OmegaConf's account of one override, in our words."""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        key = str(cause.full_key)
        siblings = groups() if "/" in key else map(str, cause.parent_node)
        root: Any = OmegaConf.to_container(cause.parent_node._get_root(), resolve=False)
        return renamed(key, sys.argv) or unknown_key(key, siblings, root)
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {_brief(str(cause))}"
    if meant := re.match(
        r"Could not override '(\S+)'.*Did you mean to override (?:one of )?(.*)\?", message, re.S
    ):
        return renamed(meant[1], sys.argv) or unknown_key(meant[1], meant[2].split(", "))
    if group := re.search(r"config group '(\S+)' does not exist", message):
        return renamed(group[1], sys.argv) or unknown_key(group[1], groups())
    if many := re.match(r"Ambiguous value for argument '(.*)'|Sweep parameters '(.*)'", message):
        given = many[1] or many[2]
        return f"{given} asks for a sweep: add -m for one job a value, or write [a,b] for a list"
    return _brief(message)


def _explain_group_value(message: str) -> str:
    """`dropout=1`: Hydra does not say where."""
    for argument in sys.argv[1:]:
        group, _, value = argument.partition("=")
        if group in groups() and re.fullmatch(r"[\d.+-]+|null|true|false", value, re.I):
            return unknown_choice(group, value)
    return message


def _explain_interpolation(message: str) -> str:
    """`seed=${sed}`: OmegaConf does not say where."""
    found = re.search(r"Interpolation key '(.+?)' not found|interpolation '\$\{(.+?)\}'", message)
    for argument in sys.argv[1:]:
        if found and f"${{{found[1] or found[2]}}}" in argument:
            return f"{argument}: {message}"
    return message


def _explain_choice(error: MissingConfigException) -> str:
    assert error.missing_cfg_file is not None
    group, _, choice = error.missing_cfg_file.rpartition("/")
    parent, _, folder = group.rpartition("/")
    if parent in FOLDERS:
        return unknown_choice(parent, f"{folder}/{choice}")
    return unknown_choice(group, choice, error.options or ())


def _brief(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [
        line for line in lines if not line.startswith(("full_key", "object_type", "reference_"))
    ]
    return "\n".join(line for line in told[:2] if not line.startswith("See https"))
