"""Look at the masks of a finished run: pictures and one page, in its directory under masks/.

python inspect_masks.py --run runs/nano/learned/seed1-1a2b3c4d
python inspect_masks.py --run DIR --text "The city lies on the river" --module block3/mlp_output
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.errors import run_cli


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
