"""Finished runs to W&B, with all that their files hold by now.

    python -m tracking.send --run runs/nano/*/seed*

For runs that had no tracker, and for what evaluate.py --record and inspect_masks.py have added since.
"""

import argparse
import logging
import sys
from pathlib import Path

from cli.errors import run_cli
from common.errors import FAILED
from common.wandb_places import PROJECT


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tracking.send",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", required=True, nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--project", default=PROJECT)
    parser.add_argument("--entity", help="a W&B team (default: your own)")
    parser.add_argument("--mode", choices=("auto", "online", "offline"), default="auto")
    args = parser.parse_args()

    from tracking.directory import open_finished
    from tracking.show import show_again
    from tracking.wandb import WandbTracker

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tracker = WandbTracker(project=args.project, entity=args.entity, mode=args.mode)
    unsent = []
    for directory in args.run:
        with open_finished(directory, by_any_code=True) as run:
            if not show_again(run, tracker):
                unsent.append(str(directory))
    if unsent:
        print(f"error: not sent: {', '.join(unsent)}", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    run_cli(main)
