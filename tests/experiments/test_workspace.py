"""A table's workspace and report: what is built offline, and what would be sent."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from PIL import Image

from experiments import workspace as module
from experiments.runs import load_table
from experiments.spec import load_spec
from experiments.workspace import BARS, LINES, main, report, results, workspace
from tests.wandb_server import Server

KEY = "0123456789" * 4
needs_extra = pytest.mark.skipif(
    find_spec("wandb_workspaces") is None, reason="the extra workspaces is not installed"
)


@pytest.fixture
def table(small_case, small_runs):
    return load_table(load_spec(small_case), small_runs)


@needs_extra
def test_the_workspace_has_a_row_a_line_with_a_band_over_its_seeds():
    spec = workspace("small_case", "P", "E")._spec
    assert (spec["entity"], spec["project"], spec["displayName"]) == ("E", "P", "small_case")
    sections = spec["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [*LINES, "Media"]
    *_, last = sections
    assert "inspection/masks" in str(last["panels"]) and "'samples'" in str(last["panels"])
    drawn = [panel for section in sections[:-1] for panel in section["panels"]]
    assert len(drawn) == sum(map(len, [*LINES.values(), *BARS.values()])) < 12
    for panel in drawn:
        config = panel["config"]
        assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == (
            "jobType",
            "mean",
            "minmax",
        )
    (runs,) = spec["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group", "jobType"]
    (chosen,) = runs["filters"]["filters"]
    assert (chosen["key"]["name"], chosen["op"], chosen["value"]) == (
        "table_name",
        "=",
        "small_case",
    )


@needs_extra
def test_the_report_has_the_table_its_figures_and_the_curves(table):
    spec = report(table, "the command", "P", "")._to_model().model_dump(by_alias=True)
    assert (spec["displayName"], spec["description"]) == ("A small case", "made by the command")
    blocks = spec["spec"]["blocks"]
    (text,) = [block["content"] for block in blocks if block["type"] == "markdown-block"]
    assert "## Final loss" in text and "| standard 0.2" in text
    figures, curves = (
        block["metadata"]["panelBankSectionConfig"]["panels"]
        for block in blocks
        if block["type"] == "panel-grid"
    )
    keys = [panel["config"].get("mediaKeys") for panel in figures]
    assert keys[:4] == [
        ["figures/curves"],
        ["figures/val"],
        ["figures/difference"],
        ["figures/gap"],
    ]
    assert figures[4]["viewType"] == "Weave" and "results" in json.dumps(figures[4]["config"])
    metrics = [name for panel in curves for name in panel["config"]["metrics"]]
    assert sorted(metrics) == sorted(
        n for names in [*LINES.values(), *BARS.values()] for n in names
    )
    places = [(panel["layout"]["x"], panel["layout"]["y"]) for panel in curves]
    assert len(set(places)) == len(places)


def test_the_results_are_a_line_for_each_row(table):
    frame = results(table).set_index("row")
    assert list(frame.index) == ["none", "standard_0.2", "learned", "unborn"]
    assert frame.loc["none", "val"] == pytest.approx(4.01)
    assert (frame.loc["learned", "seeds"], frame.loc["unborn", "state"]) == (2, "not run")


@needs_extra
def test_without_a_key_it_is_built_and_says_what_to_do(small_case, small_runs, monkeypatch, capsys):
    monkeypatch.setattr("experiments.sources.has_wandb_key", lambda: False)
    assert main([small_case, "--runs", str(small_runs)]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("built: a workspace of 11 panels for the runs of table 'small_case'")
    assert "needs a W&B key, and there is none: run `wandb login`" in said.err


class FakeRun:
    """What W&B would be sent as the table's own run."""

    def __init__(self, **settings):
        self.settings, self.logged = settings, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def log(self, values):
        self.logged |= values


def one_figure(table, folder, suffix):
    path = folder / f"{table.spec.name}_curves.{suffix}"
    Image.new("RGB", (2, 2)).save(path)
    return [path]


@needs_extra
def test_with_a_key_results_figures_workspace_and_report_are_sent(
    small_case, small_runs, monkeypatch, capsys
):
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    sent = []

    def save(thing):
        sent.append(thing)
        return SimpleNamespace(url=f"https://{type(thing).__name__}")

    monkeypatch.setattr(wandb, "Api", lambda timeout: SimpleNamespace(default_entity="me"))
    monkeypatch.setattr(wandb, "init", lambda **kw: sent.append(FakeRun(**kw)) or sent[-1])
    monkeypatch.setattr(module, "draw", one_figure)
    monkeypatch.setattr(Workspace, "save", save)
    monkeypatch.setattr(Report, "save", save)
    assert main([small_case, "--runs", str(small_runs), "--project", "P"]) == 0
    run, space, paper = sent
    assert list(run.logged) == ["results", "figures/curves"]
    assert (run.settings["group"], run.settings["job_type"]) == ("small_case", module.TABLE_JOB)
    assert {(thing.entity, thing.project) for thing in (space, paper)} == {("me", "P")}
    assert capsys.readouterr().out.endswith("\nhttps://Workspace\nhttps://Report\n")


@needs_extra
def test_what_the_service_refuses_is_one_line(small_case, small_runs, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)

    def refuse(timeout):
        raise wandb.errors.AuthenticationError("no such account")

    monkeypatch.setattr(wandb, "Api", refuse)
    assert main([small_case, "--runs", str(small_runs)]) == 2
    said = capsys.readouterr().err
    assert said == (
        "error: W&B did not take the workspace of learned-dropout-gpt: no such account\n"
    )


SAVE = """
import sys
from experiments.runs import load_table
from experiments.spec import load_spec
from experiments.workspace import report, workspace

table = load_table(load_spec("published_nano"))
workspace("published_nano", "P", "owner").save()
report(table, "the command", "P", "owner").save()
"""


@needs_extra
@pytest.mark.slow
def test_wandbs_own_client_sends_them():
    with Server() as server:
        done = subprocess.run(
            [sys.executable, "-c", SAVE],
            env=os.environ | {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.address},
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    space, paper = server.views
    assert space["displayName"] == "published_nano" and "minmax" in space["spec"]
    assert paper["displayName"] == "The published comparison, at nano"
    assert "figures/curves" in paper["spec"] and "## Final loss" in paper["spec"]


def test_without_the_extra_it_says_how_to_install_it(small_case, monkeypatch, capsys):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert main([small_case]) == 2
    assert "pip install -c constraints.txt -e '.[workspaces]'" in capsys.readouterr().err


def test_the_panels_show_what_a_learned_run_logs():
    """W&B's names for those in a record (`tracking/trackers.py`)."""
    home = Path(__file__).parents[2] / "results" / "runs" / "published_nano" / "learned"
    record = json.loads((home / "seed1.json").read_text())
    known = set(record["curve"][0]) | set(record["metrics"])
    known |= {f"final/{name}" for name in record["metrics"]}
    known |= {f"best/{name}" for name in record["best"]}
    known |= {f"speed/{name}" for name in known} | {f"progress/{name}" for name in known}
    assert {name for names in [*LINES.values(), *BARS.values()] for name in names} <= known
