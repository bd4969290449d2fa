"""Whose error it is, and what a process that met it exits with."""

import os

# The exit codes of every command, as CONTRIBUTING has them.
FAILED = 1  # a bug, a machine out of space or memory, or a sweep in which a job failed
MISTAKEN = 2  # a mistake in the command or the config
NON_FINITE = 3  # the loss or a gradient was not finite
IN_USE = os.EX_UNAVAILABLE  # 69: another process has the run
INTERRUPTED = os.EX_TEMPFAIL  # 75: try again later, which here goes on from the checkpoint


class NonFiniteError(ArithmeticError):
    """The loss or a gradient is not finite; the update of that step was not made."""


class UserError(ValueError):
    """What a person can mend; the message has the name, the value, the rule and the remedy.

    Commands print it without a traceback and exit with 2. A ValueError of any other class is a bug.
    """


class InUseError(UserError):
    """Another process holds what this one wants; in a sweep the run is left to it."""


class LostRankError(RuntimeError):
    """Another process of the same run ended; it says why itself. What was saved is not touched."""
