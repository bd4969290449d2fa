"""A table's dashboard on W&B: `python -m experiments.workspace published_nano`.

It saves a workspace, in which the table's runs are grouped by row with bands over seeds, and a report
with the table's results and figures. Needs the extra `workspaces`.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from common.errors import UserError
from experiments import page, papers
from experiments.command import answer, parser, print_list, spelled, wanted
from experiments.figures import FIGURES, draw
from experiments.formats import plain
from experiments.records import METRICS
from experiments.runs import Table
from experiments.sources import TIMEOUT_S, need_key

# Sections and their panels: lines over steps, or bars of what the summary has, by W&B's names.
LINES = {
    "Loss": ("val/loss_nats", "train/loss_nats"),
    "Masks": ("train/ones", "eval/ones", "train/penalty"),
    "Speed": ("speed/tokens_per_s",),
}
BARS = {
    "Loss": ("best/val/loss_nats", "final/val/loss_nats"),
    "Masks": (),
    "Speed": ("progress/time_s",),
}
ROW = "JobType"  # as the tracker has it; the table is the group
OVER_SEEDS: dict[str, Any] = {
    "groupby": ROW,
    "groupby_aggfunc": "mean",
    "groupby_rangefunc": "minmax",
}
MOST_ROWS = 100  # W&B's own bound is 10 runs a panel
TABLE_JOB = "table"  # the job type of the run that holds a table's results and figures


def panels(section: str) -> list[Any]:
    """A section's panels: a row's mean over its seeds, and the band from the lowest to the highest."""
    import wandb_workspaces.reports.v2 as wr

    lines = [
        wr.LinePlot(title=name, y=[name], max_runs_to_show=MOST_ROWS, **OVER_SEEDS)
        for name in LINES[section]
    ]
    bars = [
        wr.BarPlot(title=name, metrics=[name], max_bars_to_show=MOST_ROWS, **OVER_SEEDS)
        for name in BARS[section]
    ]
    return [*lines, *bars]


def media() -> list[Any]:
    """What runs have to look at: the pages of their masks, and their closing samples."""
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.MediaBrowser(title="masks", media_keys=["inspection/masks"], num_columns=1),
        wr.WeavePanelSummaryTable(table_name="samples"),
    ]


def workspace(table: str, project: str, entity: str) -> Any:
    """The workspace of a table's runs, grouped by table and row."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    found = {name: panels(name) for name in LINES} | {"Media": media()}
    return ws.Workspace(
        name=table,
        project=project,
        entity=entity,
        sections=[ws.Section(name=n, panels=shown, is_open=True) for n, shown in found.items()],
        settings=ws.WorkspaceSettings(max_runs=MOST_ROWS),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Config("table_name") == table),
            groupby=[expr.Metric("Group"), expr.Metric(ROW)],
        ),
    )


def report(table: Table, command: str, project: str, entity: str) -> Any:
    """The report: the table's results, its figures, and the curves of its runs as W&B has them."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    name = table.spec.name
    own = wr.Runset(
        project=project,
        entity=entity,
        name=f"table {name}",
        filters=expr.And(expr.Metric("Group") == name, expr.Metric(ROW) == TABLE_JOB),
    )
    runs = wr.Runset(
        project=project,
        entity=entity,
        name=name,
        filters=expr.And(expr.Config("table_name") == name),
        groupby=["Group", ROW],
    )
    shown: list[Any] = [
        wr.MediaBrowser(title=figure, media_keys=[f"figures/{figure}"], num_columns=1)
        for figure in FIGURES
    ]
    shown.append(wr.WeavePanelSummaryTable(table_name="results"))
    lines = [panel for section in LINES for panel in panels(section)]
    return wr.Report(
        project=project,
        entity=entity,
        title=plain(table.spec.title)[:128],
        description=f"made by {command}",
        blocks=[
            wr.P(plain(table.spec.question, most=2000)),
            wr.MarkdownBlock(page.glance(table)),
            wr.H2("Figures"),
            wr.PanelGrid(runsets=[own], panels=_placed(shown, columns=2)),
            wr.H2("Runs"),
            wr.PanelGrid(runsets=[runs], panels=_placed(lines, columns=3)),
        ],
    )


def _placed(panels: list[Any], columns: int) -> list[Any]:
    """The panels side by side; W&B's grid is 24 wide."""
    import wandb_workspaces.reports.v2 as wr

    width = 24 // columns
    for place, panel in enumerate(panels):
        line, column = divmod(place, columns)
        panel.layout = wr.Layout(x=column * width, y=line * width, w=width, h=width)
    return panels


def results(table: Table) -> pd.DataFrame:
    """A line for each row: how many seeds finished, and the means of what they came to."""
    frame = pd.read_csv(StringIO(papers.csv(table)))
    means = {f"{metric}_mean": metric for metric in METRICS if f"{metric}_mean" in frame}
    return frame[["row", "state", "val_n", *means]].rename(columns={"val_n": "seeds", **means})


def upload(table: Table, command: str, project: str, entity: str | None) -> list[str]:
    """Send results and figures as a run, save the workspace and the report; where they are."""
    import wandb

    try:
        entity = entity or str(wandb.Api(timeout=TIMEOUT_S).default_entity)
        run = wandb.init(
            project=project, entity=entity, id=f"table-{table.spec.name}", resume="allow",
            name=f"table {table.spec.name}", group=table.spec.name, job_type=TABLE_JOB,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False,
                init_timeout=TIMEOUT_S,
            ),
        )  # fmt: skip
        with run, TemporaryDirectory() as folder:
            logged: dict[str, Any] = {"results": wandb.Table(dataframe=results(table))}
            for path in draw(table, Path(folder), "png"):
                figure = path.stem.removeprefix(f"{table.spec.name}_")
                logged[f"figures/{figure}"] = wandb.Image(str(path))
            run.log(logged)
        saved = (
            workspace(table.spec.name, project, entity),
            report(table, command, project, entity),
        )
        return [thing.save().url for thing in saved]
    except Exception as error:  # W&B's own, its transport's, and ValueError for no such project
        raise UserError(f"W&B did not take the workspace of {project}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Save workspace and report; 0, or 2 for an error that a person can put right."""
    import matplotlib

    matplotlib.use("agg")
    options = parser("workspace", "a workspace and a report on W&B", writes=False)
    arguments = options.parse_args(argv)

    def make() -> int:
        if arguments.list:
            return print_list()
        if find_spec("wandb_workspaces") is None:
            raise UserError(
                "a workspace needs the package wandb-workspaces, which is not installed: "
                "pip install -c constraints.txt -e '.[workspaces]'"
            )
        table = wanted(options, arguments)
        if not table.finished:
            raise UserError(f"table {table.spec.name!r} has no finished run: nothing to report")
        command, project = spelled("experiments.workspace", argv), arguments.project
        built = workspace(table.spec.name, project, ""), report(table, command, project, "")
        n_panels = sum(len(section.panels) for section in built[0].sections)
        print(
            f"built: a workspace of {n_panels} panels for the runs of table {table.spec.name!r}, "
            f"a report on {len(table.finished)} finished runs"
        )
        need_key("saving them on W&B")
        print(*upload(table, command, project, arguments.entity), sep="\n")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
