"""Loss of trained runs on any split.

    python evaluate.py --run DIR [--split train]
    python evaluate.py --run DIR... --split test --record
    python evaluate.py --run ROW/seed* --ensemble [--split test] [--record]
    python evaluate.py --run DIR... --masks [--split test] [--record]
    python evaluate.py --run DIR --tasks FILE.yaml     # lm-evaluation-harness, docs/huggingface.md

The test split is held out: no choice in this repository is made on it. `--record` reads it once, for
the last and the best checkpoint of a finished run, and keeps the result in the run's record, where
tables find it, and shows it to the run's tracker; asked again, it prints what is kept. `--ensemble`
averages the probabilities of all the runs; with `--record`, for the records of one row's runs.
`--masks` is the loss of the last weights under learned masks that were not made for the text: of
another window, of their mean, at random (`inspection/other_masks.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cli.arguments import positive
from cli.errors import run_cli
from common.errors import UserError

if TYPE_CHECKING:
    from tracking.load import LoadedRun

KEPT: dict[str, Literal["best", "last"]] = {"final": "last", "best": "best"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, nargs="+", metavar="DIR", help="runs' directories")
    parser.add_argument("--split", choices=["train", "val", "test"], default="val")
    parser.add_argument(
        "--windows", type=positive, help="default: the run's evaluate.final_windows"
    )
    parser.add_argument("--checkpoint", choices=["best", "last"], default="last")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--attention-dropout",
        action="store_true",
        help="leave attention dropout on, as the original's evaluation did",
    )
    parser.add_argument(
        "--record", action="store_true", help="read the test split once, for the run's record"
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="of the runs' averaged probabilities"
    )
    parser.add_argument(
        "--masks", action="store_true", help="under other learned masks than the text's own"
    )
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="score tasks of lm-evaluation-harness instead"
    )
    args = parser.parse_args()
    if (args.ensemble or args.masks) and (not _is_plain(args) or args.ensemble == args.masks):
        way = "--ensemble" if args.ensemble else "--masks"
        parser.error(f"{way} goes with --run, --split, --device and --record alone")
    if args.record and not (_is_plain(args) and args.device == "auto" and _may_record(args)):
        parser.error(
            "--record goes with --split test and --run alone, or with --ensemble or --masks, "
            "--split val or test and --run, so that all runs are alike"
        )
    if args.ensemble:
        return print(json.dumps(join(args), indent=1))
    plain = score_tasks if args.tasks else read_test if args.record else evaluate
    answer = try_masks if args.masks else plain
    for directory in args.run:
        print(json.dumps({"run": directory, **answer(Path(directory), args)}, indent=1))


def _is_plain(args: argparse.Namespace) -> bool:
    options = (args.windows, args.checkpoint, args.attention_dropout, args.tasks)
    return options == (None, "last", False, None)


def _may_record(args: argparse.Namespace) -> bool:
    return args.split == "test" or ((args.ensemble or args.masks) and args.split == "val")


def join(args: argparse.Namespace) -> dict[str, Any]:
    """The ensemble of the runs, by the last, the best and the averaged weights."""
    from tracking.ensemble import evaluate_ensemble, record_ensemble

    runs = [Path(directory) for directory in args.run]
    if args.record:
        return {"runs": args.run, **record_ensemble(runs, args.split)}
    found = evaluate_ensemble(runs, args.split, args.device)
    return {"runs": args.run, "split": args.split, **found}


def try_masks(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The loss under each way of `inspection/other_masks.py`; with `--record`, kept in the record."""
    from inspection.other_masks import losses_with_other_masks
    from tracking.directory import open_finished
    from tracking.load import load_run
    from tracking.record import add_to_record
    from tracking.show import show_to_its_own

    if not args.record:
        run = load_run(directory, "last", args.device)
        return {"split": args.split, **losses_with_other_masks(run, args.split)}
    with open_finished(directory) as opened:
        record = opened.read_record()
        run = load_run(directory, "last", record["device"]["kind"])
        masks = record.get("masks") or {}
        add_to_record(opened, masks={**masks, args.split: losses_with_other_masks(run, args.split)})
        show_to_its_own(opened)
        return {"split": args.split, **opened.read_record()["masks"][args.split]}


def evaluate(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Loss, its standard error and bits per byte on the disjoint windows of one split."""
    from tracking.load import load_run

    run = load_run(directory, args.checkpoint, args.device)
    if args.windows is not None:
        run.cfg.evaluate.final_windows = args.windows
    run.cfg.evaluate.attention_dropout = args.attention_dropout
    machine = {"dtype": run.machine.dtype_name, "device": run.machine.device.type}
    return {
        "checkpoint": args.checkpoint,
        "split": args.split,
        **machine,
        **measure(run, args.split),
    }


def score_tasks(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The results of lm-evaluation-harness by task."""
    if find_spec("lm_eval") is None:
        raise UserError("--tasks needs lm-eval: pip install -c constraints.txt -e '.[harness]'")
    _import_their_evaluate()
    from huggingface.harness import evaluate_tasks
    from tracking.load import load_run

    run = load_run(directory, args.checkpoint, args.device)
    return {"checkpoint": args.checkpoint, "tasks": evaluate_tasks(run, args.tasks)}


def _import_their_evaluate() -> None:
    """Import the package `evaluate`, where the harness finds some metrics: this file would hide it."""
    if "evaluate" in sys.modules:
        return
    root, kept = Path(__file__).parent.resolve(), sys.path[:]
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != root]
    try:
        import_module("evaluate")
    finally:
        sys.path[:] = kept


def measure(run: LoadedRun, split: str) -> dict[str, Any]:
    """The loss of a checkpoint, and of its averaged weights where it has some."""
    from training.average import weights_of
    from training.evaluate import evaluate_split, losses_of_average
    from training.state import averaged_weights

    measured = {"step": run.checkpoint.step, **evaluate_split(run, split)}
    if averaged := averaged_weights(run.checkpoint.tensors):
        with weights_of(run.model, averaged):
            measured |= losses_of_average(evaluate_split(run, split))
    return measured


def read_test(directory: Path, _: argparse.Namespace) -> dict[str, Any]:
    """The test split's part of the run's record, measured now if it never was.

    On the kind of device and in the dtype of the run, and only by the code that trained it.
    """
    from tracking.directory import open_finished
    from tracking.load import load_run
    from tracking.record import add_to_record
    from tracking.show import show_to_its_own

    with open_finished(directory) as opened:
        record = opened.read_record()
        if "test" not in record:
            kind = record["device"]["kind"]
            test = {
                name: measure(load_run(directory, checkpoint, kind), "test")
                for name, checkpoint in KEPT.items()
            }
            add_to_record(opened, test=test)
            show_to_its_own(opened)
        return dict(opened.read_record()["test"])


if __name__ == "__main__":
    run_cli(main)
