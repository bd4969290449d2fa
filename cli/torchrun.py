"""torchrun, as a part of this project: `python -m cli.torchrun --nproc-per-node=2 train.py ...`.

The arguments are torchrun's own. What differs is how it ends: with the exit code of the rank that
failed first (75 for interrupted, 2 for a mistake), where torchrun knows 1 alone; and with that rank's
own words, without a page of torchrun's.
"""

import logging
import signal
import sys

from common.errors import INTERRUPTED


def main(arguments: list[str] | None = None) -> int:
    """Run the ranks; the exit code."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        torchrun(arguments)
    except SignalException:  # passed on to the ranks, which have saved
        return INTERRUPTED
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            memory = ": by hand, or by the system when memory ran out" * (name == "SIGKILL")
            print(f"error: rank {rank} was killed ({name}){memory}", file=sys.stderr)
            return 128 - failure.exitcode
        return int(failure.exitcode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
