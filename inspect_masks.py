"""Look at the masks of a finished run: pictures and one page, in its directory under masks/.

python inspect_masks.py --run runs/nano/learned/seed1-1a2b3c4d
python inspect_masks.py --run DIR --text "The city lies on the river" --module block3/mlp_output

Nothing is sent: of a finished W&B run it prints the command that adds the page to it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import run_cli

if TYPE_CHECKING:
    from inspection.subject import Subject


def main() -> None:
    arguments = parse_arguments()

    from inspection.report import write_report
    from inspection.subject import load_subject

    subject = load_subject(
        arguments.run,
        which=arguments.checkpoint,
        module=arguments.module,
        text=arguments.text,
        n_window=arguments.windows,
        device=arguments.device,
    )
    name = "/".join(arguments.run.resolve().parts[-2:])
    print(write_report(subject, arguments.run / "masks", f"Masks of {name}"))
    if command := sending(subject, arguments.run):
        print(f"W&B: show it with `{command}`", file=sys.stderr)


def sending(subject: Subject, run: Path) -> str:
    """The command that shows the page in the project of the run; empty where the run has none.

    Empty too where the run is not finished: it shows the page itself at its end.
    """
    from tracking.directory import read_record

    tracker = subject.cfg.tracker
    if not tracker.get("project") or read_record(run).get("status") != "finished":
        return ""
    words = ["python", "-m", "tracking.send", "--run", str(run)]
    for option in ("project", "entity", "mode"):
        if value := tracker.get(option):
            words += [f"--{option}", value]
    return shlex.join(words)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the run's directory")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--module", help="the dropout to look at alone (default: the last one)")
    parser.add_argument("--text", help="the passage (default: the validation split's beginning)")
    parser.add_argument("--windows", type=int, default=64, help="validation windows (default: 64)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    run_cli(main)
