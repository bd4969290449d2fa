"""The README's recipe and commands, followed to the letter."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from cli.config import check_config, register_schema

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "results", "runs", "wandb")
TINY = ("steps=2", "model.n_layer=1", "model.n_embd=16", "batch_size=4", "micro_batch_size=4",
        "evaluate.windows=4", "evaluate.final_windows=4", "tracker=none", "data.max_bytes=400000",
        "data.max_train_tokens=20000")  # fmt: skip


def recipe_files() -> dict[str, str]:
    """The files that "Add a dropout" has one write, by path."""
    section = README.split("## Add a dropout")[1].split("\n## ")[0]
    found = re.findall(r"\d\. `([^`]+)`\n\n( +)```\w+\n(.*?)\n +```", section, re.DOTALL)
    return {path: re.sub(f"(?m)^{indent}", "", text) + "\n" for path, indent, text in found}


@pytest.fixture
def followed(tmp_path: Path) -> Path:
    """A copy of the repository in which the recipe has been followed."""
    copy = tmp_path / "repository"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    files = recipe_files()
    assert set(files) == {
        "dropout/shared.py",
        "configs/dropout/slot/shared.yaml",
        "tests/dropout/test_shared.py",
    }
    for path, text in files.items():
        (copy / path).write_text(text, encoding="utf-8")
    return copy


def run(directory: Path, *arguments: str) -> str:
    """What Python prints when it is run there; it must not fail."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=directory, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_recipe_for_a_new_dropout_trains_two_steps(followed: Path) -> None:
    (command,) = re.findall(r"`(python train\.py dropout/slot@\S+=shared [^`]+)`", README)
    run(followed, *shlex.split(command)[1:], *TINY, f"data.cache_dir={ROOT / '.cache/tokens'}")
    assert len(list(followed.glob("runs/nano/mlp_output=shared,p=0.2/seed1-*/summary.json"))) == 1


def test_three_files_are_held_to_the_laws(followed: Path) -> None:
    said = run(followed, "-m", "pytest", "-q", "tests/dropout/test_laws.py", "-k", "shared")
    assert int(re.findall(r"(\d+) passed", said)[0]) > 50


@pytest.mark.slow
def test_with_the_three_files_all_is_collected_and_every_test_of_the_dropouts_passes(
    followed: Path,
) -> None:
    run(followed, "-m", "pytest", "-q", "--collect-only")
    run(followed, "-m", "pytest", "-q", "tests/dropout")


def commands() -> list[str]:
    """Every single training command of the README, without its comment."""
    lines = (line.strip().split("  #")[0].strip() for line in README.splitlines())
    found = [line for line in lines if line.startswith("python train.py ")]
    return [line for line in found if " -m " not in line and " table=" not in line]


@pytest.mark.parametrize("command", commands())
def test_every_training_command_composes(command: str) -> None:
    register_schema()
    GlobalHydra.instance().clear()
    arguments = [a for a in shlex.split(command)[2:] if "=" in a and "=shared" not in a]
    arguments = [a for a in arguments if not a.startswith("dropout.mlp_output.p")]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        check_config(compose("train", arguments))


def test_it_is_read_in_a_sitting() -> None:
    assert len(README.split()) <= 1200


def test_train_py_stays_within_150_lines() -> None:
    assert len((ROOT / "train.py").read_text(encoding="utf-8").splitlines()) <= 150
