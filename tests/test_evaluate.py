"""The command that reads a split of a trained run, and the test split once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import evaluate
from experiments.records import read_record
from tracking.load import load_run

ROOT = Path(__file__).parents[1]
TINY = (
    "table_name=tiny", "dropout=standard", "steps=4", "batch_size=4", "micro_batch_size=4",
    "eval_every=2",
    "model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
    "data.vocab_size=300", "data.max_bytes=400000", "evaluate.windows=4", "evaluate.final_windows=8",
    "tracker=none",
)  # fmt: skip
# As `python train.py` for each seed, and at the end the project's files that the process has imported.
TRAIN = """
import json, pathlib, runpy, sys
used, *arguments = sys.argv[1:]
for seed in (1, 2, 3):
    sys.argv = ["train.py", *arguments, f"seed={seed}"]
    runpy.run_path("train.py", run_name="__main__")
from tracking.provenance import used_files
pathlib.Path(used).write_text(json.dumps(used_files()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs of a row, three seeds, as `train.py` leaves them."""
    folder = tmp_path_factory.mktemp("evaluate")
    command = [sys.executable, "-c", TRAIN, str(folder / "used.json"), *TINY]
    subprocess.run(
        [*command, f"runs_dir={folder / 'runs'}"], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return next((folder / "runs").glob("*/*/seed1-*"))


def ask(monkeypatch, capsys, *arguments: object) -> dict:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
    evaluate.main()
    return json.loads(capsys.readouterr().out)


def test_the_record_names_every_file_that_the_run_imported(folder, run):
    named = json.loads((run / "record.json").read_text())["code"]["files"]
    assert named == json.loads((folder / "used.json").read_text())
    assert {"train.py", "training/step.py", "training/evaluate.py", "ops/head.py"} <= named.keys()


def test_the_last_checkpoint_has_the_loss_of_the_record(run, monkeypatch, capsys):
    answer = ask(monkeypatch, capsys, "--run", run, "--split", "val")
    final = json.loads((run / "record.json").read_text())["metrics"]
    assert (answer["step"], answer["val/windows"], answer["device"]) == (4, 8, "cpu")
    assert answer["val/loss_nats"] == pytest.approx(final["val/loss_nats"], abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_the_one_that_the_run_computed_in(run, dtype, tmp_path, monkeypatch, capsys):
    copy = Path(shutil.copytree(run, tmp_path / run.name))
    record = json.loads((copy / "record.json").read_text())
    (copy / "record.json").write_text(json.dumps({**record, "dtype": dtype}))
    assert ask(monkeypatch, capsys, "--run", copy, "--windows", 1)["dtype"] == dtype


def test_the_test_split_is_read_once_and_kept_where_a_table_finds_it(run, monkeypatch, capsys):
    record = ("--run", run, "--split", "test", "--record")
    first = ask(monkeypatch, capsys, *record)
    alone = ask(monkeypatch, capsys, "--run", run, "--split", "test")
    best = ask(monkeypatch, capsys, "--run", run, "--split", "test", "--checkpoint", "best")
    for name, answer in (("final", alone), ("best", best)):
        assert first[name]["step"] == answer["step"]
        assert first[name]["test/loss_nats"] == answer["test/loss_nats"]
    kept = read_record(run / "record.json", Path(run.parent.name, run.name, "record.json"))
    assert kept.metric("test") == first["final"]["test/loss_nats"]
    assert kept.metric("best_test") == first["best"]["test/loss_nats"]

    monkeypatch.setattr("training.evaluate.evaluate_split", None)  # whoever calls it fails
    assert ask(monkeypatch, capsys, *record) == first


@pytest.fixture(scope="module")
def row(run: Path) -> list[Path]:
    """Three runs of a row, of as many seeds."""
    return sorted(run.parent.glob("seed*"))


def test_an_ensemble_averages_probabilities(row, monkeypatch, capsys):
    """Against plain logits: the mean over runs of the probability of each next token."""
    answer = ask(monkeypatch, capsys, "--run", *row, "--ensemble")
    probabilities = []
    for directory in row:
        loaded = load_run(directory, "last", "cpu")
        size = loaded.cfg.model.block_size
        starts = loaded.batches["val"].disjoint_starts(8).cpu()
        text = torch.as_tensor(loaded.data.tokens("val").astype("int64"))
        windows = torch.stack([text[start : start + size + 1] for start in starts])
        with torch.no_grad():
            logits = loaded.model(windows[:, :-1]).hidden @ loaded.model.head_weight.T
        chosen = logits.double().softmax(-1).gather(-1, windows[:, 1:, None])
        probabilities.append(chosen)
    expected = -torch.stack(probabilities).mean(0).log().mean().item()
    assert answer["final"]["loss_nats"] == pytest.approx(expected, abs=1e-4)
    members = answer["final"]["members_nats"]
    assert answer["final"]["loss_nats"] < sum(members) / len(members)  # by Jensen's inequality
    assert {"final", "best"} == answer.keys() - {"runs", "split"}


def test_an_ensembles_losses_are_kept_in_each_record(row, monkeypatch, capsys):
    first = ask(monkeypatch, capsys, "--run", *row[:2], "--ensemble", "--record")
    told = ask(monkeypatch, capsys, "--run", *row, "--ensemble", "--record")
    ask(monkeypatch, capsys, "--run", *row, "--ensemble", "--split", "test", "--record")
    for directory in row:
        kept = read_record(directory / "record.json", Path(row[0].parent.name, directory.name, "r"))
        assert kept.ensemble.members == told["members"]
        assert kept.ensemble.val.final.loss == told["val"]["final"]
        assert kept.ensemble.test.best.loss > 0
    # without the third run it is the ensemble of the first two, which was made before
    assert kept.ensemble.val.final.without == first["val"]["final"]


@pytest.mark.parametrize("how_many", [1, 2])
def test_no_ensemble_of_one_run(row, how_many, monkeypatch, capsys):
    twice = [row[0]] * how_many
    said = "must be of one row's runs" if how_many == 2 else "must have at least two"
    with pytest.raises(ValueError, match=said):
        ask(monkeypatch, capsys, "--run", *twice, "--ensemble", *["--record"] * (how_many == 2))


def test_only_the_code_that_trained_a_run_adds_to_its_record(run, monkeypatch, capsys):
    monkeypatch.setattr("tracking.directory.changed_files", lambda files: ["model/gpt.py"])
    with pytest.raises(ValueError, match=r"finished by other code .* model/gpt.py changed"):
        ask(monkeypatch, capsys, "--run", run, "--split", "test", "--record")


@pytest.mark.parametrize("options", [(), ("--split", "val"), ("--split", "test", "--windows", "3")])
def test_record_refuses_what_would_set_runs_apart(run, options, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        ask(monkeypatch, capsys, "--run", run, "--record", *options)
    assert "--record goes with --split test" in capsys.readouterr().err


def test_a_directory_that_is_no_runs_is_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="not a run's directory"):
        ask(monkeypatch, capsys, "--run", tmp_path, "--split", "test", "--record")


def test_a_package_of_its_name_is_found_for_the_harness(tmp_path, monkeypatch):
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "__init__.py").write_text("theirs = True\n")
    path = [str(ROOT), str(tmp_path), *sys.path]
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.delitem(sys.modules, "evaluate")
    evaluate._import_their_evaluate()
    assert sys.modules["evaluate"].theirs and sys.path == path
