"""Loss of a trained run on any split: python evaluate.py --run DIR [--split test].

The test split is held out: no choice in this repository is made on it. Read it once, at the end.
"""

import argparse
import json
from typing import Any

from training.cli import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, metavar="DIR", help="a run's directory")
    parser.add_argument("--split", choices=["train", "val", "test"], default="val")
    parser.add_argument("--windows", type=int, help="default: the run's evaluate.final_windows")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="last")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--attention-dropout",
        action="store_true",
        help="leave attention dropout on, as the original's evaluation did",
    )
    args = parser.parse_args()
    print(json.dumps(evaluate(args), indent=1))


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Loss, its standard error and bits per byte on the run's fixed windows of one split."""
    from training.evaluate import evaluate_split
    from training.load import load_run

    run = load_run(args.run, args.checkpoint, args.device)
    windows = args.windows or run.cfg.evaluate.final_windows
    run.cfg.evaluate.attention_dropout = args.attention_dropout
    metrics = evaluate_split(run, args.split, windows)
    return {
        "run": str(run.directory),
        "checkpoint": args.checkpoint,
        "step": run.step,
        "split": args.split,
        "windows": windows,
        **metrics,
    }


if __name__ == "__main__":
    run_cli(main)
