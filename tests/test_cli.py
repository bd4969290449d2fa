"""The command line: what a mistake is answered with, before anything starts."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from cli.errors import run_cli

REPOSITORY = Path(__file__).parents[1]

MISTAKES = {
    # a choice
    "dropout=standrd": ["dropout=standrd", "Did you mean standard?", "learned_precomputed"],
    "row=published/nne": ["Did you mean published/none?", "published/learned"],
    "table=publishd": ["Did you mean published?"],
    "shape=publishd": ["shape=publishd: no such choice", "published_learned"],
    "dropout/slot@dropout.attention_output=locke": ["Did you mean locked?", "token"],
    "dropout=1": ["dropout=1: no such choice", "standard"],
    # a group
    "dropuot=none": ["dropuot", "Did you mean dropout?", "optimizer"],
    "dropout/slt@dropout.attention_output=none": ["Did you mean dropout/slot?"],
    "dropout/slot@dropout.atention_output=none": ["slot@dropout.attention_output?"],
    # a key
    "sed=1": ["sed", "Did you mean seed?", "steps"],
    "dropout.mlp_output.shift_int=1": ["Did you mean shift_init?", "rounding"],
    "model.n_layr=1": ["Did you mean n_layer?", "n_embd"],
    "steps": ["steps"],
    # a value
    "steps=abc": ["steps", "'abc'", "Integer"],
    "steps=0": ["steps=0 must be at least 1"],
    "seed=1,2": ["seed=1,2", "add -m"],
    "dropout.shift_init=x": ["dropout.shift_init=x must be a number"],
    "dropout.shift_init=7": ["shift_init=7"],
    "data.source=hubb": ["data.source=hubb", "files"],
    "device=gpu": ["device=gpu must be one of auto, cpu, cuda"],
    "optimizer.lr=nan": ["optimizer.lr=nan must be above 0"],
    "optimizer.betas=[0.9,1.0]": ["optimizer.betas=[0.9, 1.0]", "[0, 1)"],
    "batch_size=64 micro_batch_size=48": ["=48", "batch_size=64", "micro_batch_size=32 is one"],
    "model.n_head=5": ["model.n_head=5", "model.n_embd=128"],
    "~seed": ["seed has no value"],
}


@pytest.fixture
def answer(monkeypatch, capsys, tmp_path):
    """What `python train.py <overrides>` prints and exits with; nothing may have been written."""

    def run(*overrides: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(REPOSITORY / "train.py"), run_name="__main__")
        assert not list(tmp_path.rglob("*.log"))  # a sweep's folder may be there, a job may not
        assert {path.name for path in tmp_path.iterdir()} <= {"sweeps"}
        return int(str(exit_.value.code)), capsys.readouterr().err

    return run


@pytest.mark.parametrize(("override", "told"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_named_with_what_is_valid(answer, override, told):
    code, message = answer(*override.split())
    assert code == 2
    for part in told:
        assert part in message
    lines = [line for line in message.splitlines() if not line.startswith("Error executing job")]
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2


def test_a_mistake_in_a_sweep_starts_no_job(answer):
    code, message = answer("-m", "dropout=none,standrd", "runs_dir=.")
    assert code == 2
    assert "Did you mean standard?" in message


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def broken() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        run_cli(broken)
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_librarys_value_error_is_a_bug_of_ours():
    with pytest.raises(ValueError, match="invalid literal"):
        run_cli(lambda: int("a word"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "runs/x"), "free some space"),
        (PermissionError(13, "Permission denied", "runs/x"), "make it writable"),
        (MemoryError(), "micro_batch_size"),
    ],
)
def test_what_the_machine_lacks_is_said(capsys, error, told):
    def run() -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_cli(run)
    assert exit_.value.code == 1
    assert told in capsys.readouterr().err


def test_ctrl_c_outside_the_steps_needs_no_traceback(capsys):
    def run() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        run_cli(run)
    assert exit_.value.code == 75
    assert "the same command" in capsys.readouterr().err


def train_py(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(REPOSITORY / "train.py"), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--cfg", "job", "--resolve"], 0), (["sed=1"], 2), (["steps=0"], 2)],
)
def test_an_answer_waits_for_no_heavy_import(arguments, code):
    done = train_py(*arguments)
    assert done.returncode == code
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in loaded
    assert not loaded & {"torch", "numpy", "datasets", "wandb", "pandas", "rich"}


def test_the_traceback_is_there_for_whoever_asks():
    done = train_py("sed=1", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
