"""Tables from W&B: the same bytes as from local records, and what is said where they are not there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
import yaml

from common.wandb_places import PROJECT
from experiments import sources
from experiments.table import main
from tests.wandb_server import Server

ROOT = Path(__file__).parents[2]
KEY = "0123456789" * 4


@pytest.fixture
def small_table(tmp_path, small_runs, small_case, monkeypatch):
    """The small case as a table whose local records are the default ones."""
    home = tmp_path / "results" / "runs"
    home.mkdir(parents=True)
    shutil.move(small_runs, home / "small_case")
    for module in ("runs", "command"):
        monkeypatch.setattr(f"experiments.{module}.RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return small_case


def local_records(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("results/runs/small_case/*/seed*.json"))


def page(*arguments: str) -> bytes:
    assert main([*arguments, "--out", "page.md"]) == 0
    return Path("page.md").read_bytes()


class FakeApi:
    """W&B's public API, of a project that holds these files as its runs' records."""

    def __init__(self, records: list[Path]) -> None:
        self.records = records
        self.asked: list[tuple] = []

    def runs(self, path, filters, order):
        self.asked.append((path, filters))
        return [self.run(f"id{k}", record) for k, record in enumerate(self.records)]

    def run(self, identity, record):
        def download(root):
            folder = Path(root)
            folder.mkdir()
            return Path(shutil.copy(record, folder / "record.json")).open()

        file = SimpleNamespace(size=record.stat().st_size, download=download)
        return SimpleNamespace(id=identity, files=lambda names: [file])


@pytest.fixture
def service(tmp_path, small_table, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    api = FakeApi(local_records(tmp_path)[::-1])
    monkeypatch.setattr(wandb, "Api", lambda timeout: api)
    return api


def test_the_page_is_the_same_from_the_service(small_table, service):
    theirs = page(small_table, "--source", "wandb", "--project", "P", "--entity", "E")
    assert theirs == page(small_table)
    assert service.asked == [("E/P", {"config.table_name": "small_case"})]


def test_the_page_is_the_same_from_offline_runs(tmp_path, small_table):
    for number, record in enumerate(local_records(tmp_path)):
        offline(
            tmp_path / "deep" / "er", f"20260101_00000{number % 2}-id{number}", record.read_text()
        )
    other = json.loads(record.read_text()) | {"table": "another"}
    offline(tmp_path / "deep", "20260101_000000-other", json.dumps(other))
    offline(tmp_path / "deep", "20250101_000000-id0", "an older copy of a run, which is not read")
    assert page(small_table, "--source", "offline", "deep") == page(small_table)


def offline(folder: Path, name: str, record: str) -> None:
    files = folder / f"offline-run-{name}" / "files"
    files.mkdir(parents=True)
    (files / "record.json").write_text(record)


def test_a_table_from_elsewhere_has_its_place_under_runs(tmp_path, small_table, service, capsys):
    assert main([small_table, "--source", "wandb"]) == 0
    assert capsys.readouterr().out.endswith("\nruns/tables/small_case.md\n")
    assert service.asked[0][0] == PROJECT


def test_two_runs_of_a_row_and_seed_are_named(small_table, service, capsys):
    service.records.append(service.records[0])
    assert main([small_table, "--source", "wandb"]) == 2
    said = capsys.readouterr().err
    assert "runs id0 and id9 in learned-dropout-gpt are both row 'standard_0.2', seed 3" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["offline", "nowhere"], "nowhere has no run of table 'small_case' with its record"),
        (["wandb"], "needs a W&B key, and there is none: run `wandb login`"),
    ],
)
def test_what_is_not_there_says_what_to_do(small_table, monkeypatch, capsys, given, said):
    monkeypatch.setattr(sources, "has_wandb_key", lambda: False)
    assert main([small_table, "--source", *given]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("given", [["offline"], ["wandb", "x"], ["disk"]])
def test_another_source_is_refused(small_table, capsys, given):
    with pytest.raises(SystemExit, match="2"):
        main([small_table, "--source", *given])
    assert "--source must be `wandb`, or `offline DIR`" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["wandb", "a_table"], ["offline", "DIR", "a_table"]])
def test_a_table_named_behind_the_source_is_told_its_place(capsys, given):
    with pytest.raises(SystemExit, match="2"):
        main(["--source", *given])
    said = capsys.readouterr().err
    assert f"--source {' '.join(given)} has no table's name before it: put the table's name" in said


def test_a_run_without_a_record_is_left_out_and_named(small_table, service, monkeypatch, capsys):
    runs = [*service.runs("", {}, ""), SimpleNamespace(id="bare", files=lambda names: [])]
    monkeypatch.setattr(service, "runs", lambda *_, **__: runs)
    assert page(small_table, "--source", "wandb") == page(small_table)
    assert "warning: run bare has no record.json and is left out" in capsys.readouterr().err


def test_a_service_that_fails_is_one_line(small_table, service, monkeypatch, capsys):
    def refuse(*_, **__):
        raise wandb.errors.CommError("no such project")

    monkeypatch.setattr(service, "runs", refuse)
    assert main([small_table, "--source", "wandb", "--project", "P"]) == 2
    assert capsys.readouterr().err == "error: W&B did not give the runs of P: no such project\n"


def test_a_file_that_is_no_record_is_not_downloaded(small_table, service, monkeypatch, capsys):
    monkeypatch.setattr(sources, "MAX_RECORD_BYTES", 100)
    assert main([small_table, "--source", "wandb"]) == 2
    assert "bytes, and a record has at most 100" in capsys.readouterr().err


def test_the_project_is_the_trackers(small_table):
    config = yaml.safe_load((ROOT / "configs" / "tracker" / "wandb.yaml").read_text())
    assert config["project"] == PROJECT


# W&B for real, in processes of its own


def run_python(*arguments: object, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command_makes_the_same_page_by_wandbs_own_client(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local = page("published_nano")
    Path("page.md").unlink()
    records = sorted((ROOT / "results/runs/published_nano").glob("*/seed*.json"))
    command = ("-m", "experiments.table", "published_nano", "--source", "wandb")
    with Server() as server:
        for number, record in enumerate(reversed(records)):
            server.runs[f"id{number}"].files["record.json"] = record.read_bytes()
        place = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.address}
        run_python(*command, "--project", "dropout", "--out", "page.md", **place)
    assert Path("page.md").read_bytes() == local


TRACK = """
import sys
from pathlib import Path
from tracking.trackers import Event, TrackedRun
from tracking.wandb import WandbTracker

for directory in map(Path, sys.argv[1:]):
    run = TrackedRun(directory.name, directory, {}, "small_case", "row", "name")
    WandbTracker(project="p", mode="offline").track(run, [Event(1, {"val/loss_nats": 4.0})])
"""


@pytest.mark.slow
def test_the_page_is_the_same_from_what_the_tracker_writes_offline(tmp_path, small_table):
    first, second, *others = local_records(tmp_path)
    for record in others:
        record.unlink()
    runs = [tmp_path / "deep" / name for name in ("one", "two")]
    for directory, record in zip(runs, (first, second), strict=True):
        directory.mkdir(parents=True)
        shutil.copy(record, directory / "record.json")
    run_python("-c", TRACK, *runs)
    for directory in runs:
        (directory / "record.json").unlink()  # only W&B's own copies are left
    assert page(small_table, "--source", "offline", "deep") == page(small_table)
