"""The command line: what a mistake is answered with, before anything starts."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli.errors import run_cli
from common.errors import InUseError
from common.files import StorageError

REPOSITORY = Path(__file__).parents[1]

MISTAKES = {
    # a choice
    "dropout=standrd": ["dropout=standrd", "Did you mean standard?", "learned_precomputed"],
    "row=published/nne": ["Did you mean published/none?", "published/learned"],
    "table=publishd": ["Did you mean published?"],
    "shape=publishd": ["shape=publishd: no such choice", "published_learned"],
    "dropout/slot@dropout.attention_output=locke": ["Did you mean locked?", "token"],
    "dropout=1": ["dropout=1: no such choice", "standard"],
    "table=mine": ["no such choice. To name a run of your own: table_name=NAME"],
    "sweep=published": ["sweep is now table: table=published"],
    "experiment=published/none": ["experiment is now row: row=published/none"],
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
    "data.source=${nowhere}": ["data.source=${nowhere}: Interpolation key 'nowhere' not found"],
    "model.vocab_size=${oc.env:HOME}": ["model.vocab_size=${oc.env:HOME}: ", "Integer"],
    "dropout.shift_init=x": ["dropout.shift_init=x must be a number"],
    "dropout.shift_init=7": ["shift_init=7"],
    "data.source=hubb": ["data.source=hubb", "files"],
    "device=gpu": ["device=gpu must be one of auto, cpu, cuda"],
    "optimizer.lr=nan": ["optimizer.lr=nan must be above 0"],
    "optimizer.betas=[0.9,1.0]": ["optimizer.betas=[0.9, 1.0]", "[0, 1)"],
    "batch_size=64 micro_batch_size=48": ["=48", "batch_size=64", "micro_batch_size=32 is one"],
    "model.n_head=5": ["model.n_head=5", "model.n_embd=128"],
    "~seed": ["seed has no value"],
    "dropout=standard dropout.p=1.5": ["p=1.5 must be in [0, 1]"],
    "dropout.p=0.2": ["p belongs to dropout=alpha, ", "standard"],
    "learning_rate=1": ["Did you mean optimizer.lr?"],
    "lr=1": ["Did you mean optimizer.lr?"],
    "epochs=1": ["Did you mean steps?"],
    "+evil=1": ["evil: no such key"],
    "+dropout.pp=0.3": ["dropout.pp: no such key"],
    "schedule.decay_steps=9 schedule.min_lr=10": [
        "schedule.min_lr=10 must be at most optimizer.lr=0.002"
    ],
    "schedule.min_lr=1e-4": ["schedule.min_lr=0.0001 is read by nobody", "decay_steps"],
    "adapter.targets=[qkv]": ["adapter.targets is read by nobody at adapter=none"],
    "dropout=none +dropout.penalty_weight.max=5": ["dropout.penalty_weight: no such key"],
    "dropout.penalty_weight.max=-1": ["dropout.penalty_weight.max=-1 must be at least 0"],
    "model.n_layer=100000": ["model.n_layer=100000", "GiB"],
    "row_name=../x": ["row_name=../x must be a name"],
    "results_dir=results": ["results_dir: no such key"],
    "hydra.run.dir=/dev/null": ["hydra.run.dir=/dev/null must be a directory"],
    "hydra.launcher._target_=os.system": ["hydra.launcher._target_=os.system: Hydra's own parts"],
    "+hydra.callbacks.x._target_=os.system": ["hydra.launcher.workers"],
    "++hydra={callbacks:{x:{_target_:os.system}}}": ["Hydra's own parts"],
    "-m hydra.launcher={_target_:os.system}": ["Hydra's own parts"],
    # a row
    "row=published/learned dropout=none": ["has dropout=learned, and a row is its definition"],
    "table=published row=published/none,published/standard_0.2 dropout=none runs_dir=.": [
        "published/standard_0.2 has dropout=standard"
    ],
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
    lines = message.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    for line in lines:
        if valid := line.partition("Valid: ")[2].split(", ")[1:]:
            assert valid == sorted(valid)


def test_the_root_has_keys_and_groups(answer):
    _, message = answer("dropuot=none")
    valid = message.partition("Valid: ")[2].strip().split(", ")
    assert {"row", "table", "scale", "shape", "dropout", "seed", "row_name"} <= set(valid)


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


def test_a_wrong_option_of_torchs_optimizers_is_the_persons(capsys):
    def run() -> None:
        torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=-1)

    with pytest.raises(SystemExit) as exit_:
        run_cli(run)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: optimizer: Invalid momentum value: -1\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "runs/x"), "free some space"),
        (PermissionError(13, "Permission denied", "runs/x"), "make it writable"),
        (StorageError("cannot write x: the disk is full", 28), "the disk is full"),
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


@pytest.mark.parametrize(
    ("error", "code"),
    [(StorageError("cannot write x: a file stands there", 20), 2), (InUseError("x is in use"), 69)],
)
def test_a_path_in_the_way_is_the_persons_and_a_run_in_use_has_a_code(capsys, error, code):
    def run() -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_cli(run)
    assert exit_.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_help_shows_commands_choices_and_values():
    done = train_py("--help", "scale=small", "seed=1,2")
    assert done.returncode == 0
    for part in (
        "python train.py table=published",
        "scale    ",
        "learned_precomputed",
        "published/... (10)",
        "n_layer=6",
    ):
        assert part in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


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
