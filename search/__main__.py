"""Search a space of settings for the lowest val loss: `python -m search standard --trials 40`.

The study lies in `runs/searches/<study>/`, its runs in `runs/search_<study>/`; the same command
goes on where the last one stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import FAILED, INTERRUPTED, UserError


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked as far as it goes without the space."""
    options = argparse.ArgumentParser(
        prog="python -m search", description="Search a space of settings for the lowest val loss.",
        epilog="Given again, it goes on where it stopped. docs/search.md says what a trial is.",
    )  # fmt: skip
    options.add_argument("space", help="a name in search/spaces, or a .yaml file of your own")
    options.add_argument(
        "overrides", nargs="*", help="of train.py, for every trial: scale=small tracker=none"
    )
    options.add_argument(
        "--trials", type=int, default=40, metavar="N",
        help="how many the study shall have in all, those that are there included (40)",
    )  # fmt: skip
    options.add_argument("--workers", type=int, default=1, metavar="N", help="trials at a time (1)")
    options.add_argument("--study", metavar="NAME", help="its name (the space's)")
    options.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    arguments = options.parse_intermixed_args(argv)
    for name, least in (("trials", 0), ("workers", 1)):
        if (value := getattr(arguments, name)) < least:
            options.error(f"--{name} {value} must be at least {least}")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Run the search and write its page and figure; the exit code is a sweep's."""
    arguments = parse(argv)
    # Imported late, so that --help answers at once.
    from cli.errors import mistakes_told

    with mistakes_told():
        try:
            return search(arguments, argv)
        except KeyboardInterrupt:  # before or after the trials, which see to it themselves
            print("interrupted; the same command goes on", file=sys.stderr)
    return INTERRUPTED


def search(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from cli.naming import as_name
    from cli.sweep.gpus import available_gpus, gpus_of_workers
    from cli.sweep.jobs import job_environment
    from common.files import explained, make_directory, write_atomically
    from search.space import check_given, load_space

    space, given = load_space(arguments.space), arguments.overrides
    check_given(space, given)
    name = Path(arguments.space).stem if arguments.study is None else arguments.study
    table = f"search_{name}"
    if as_name(name) != name or as_name(table) != table:
        raise UserError(
            f"--study {name!r} must be of letters, digits and ._,=+-, and at most 90 of them"
        )
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError(
            "a search needs optuna, which is not installed: pip install -c constraints.txt "
            "-e '.[search]'"
        ) from None

    from search.figure import draw
    from search.page import counts, render, retrain
    from search.report import SearchReport, spelled
    from search.search import Search
    from search.study import complete, open_study, results

    folder = arguments.runs / "searches" / name
    make_directory(folder)
    with open_study(folder, space, given) as study:
        environment = job_environment(arguments.workers)
        gpus = gpus_of_workers(available_gpus(environment), arguments.workers)
        places = [f"runs_dir={arguments.runs}", f"table_name={table}"]
        settings = [*space.overrides, *given]
        n_left = max(0, arguments.trials - len(results(study)))
        report = SearchReport(n_left, gpus, folder, spelled(argv))
        running = Search(
            study, space, arguments.trials, [*places, *settings], environment, gpus, report
        )
        code = running.run()
        with explained(folder, "--runs DIR"):
            page = folder / "study.md"
            write_atomically(page, render(study, space, settings, spelled(argv)))
            print(counts(study))
            if complete(study):
                draw(study, folder / "history.svg")
                print(f"best: {study.best_value:.4f}, trial {study.best_trial.number}")
                print(f"to train it with new seeds: {retrain(study, space, settings)}")
            print(page)
    return code or (FAILED if running.n_failed else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
