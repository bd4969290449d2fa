import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from tracking import provenance


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A little project with one commit."""
    (tmp_path / "model").mkdir()
    (tmp_path / "train.py").write_text("steps = 1\n")
    (tmp_path / "model" / "gpt.py").write_text("width = 2\n")
    (tmp_path / "README.md").write_text("words\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "first")
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_clean_checkout_names_its_commit(checkout):
    facts = provenance.code_facts(checkout)
    assert facts["commit"] == git(checkout, "rev-parse", "HEAD")
    assert facts["dirty"] is False


def test_changes_make_it_dirty_but_results_do_not(checkout):
    (checkout / "results" / "runs").mkdir(parents=True)
    (checkout / "results" / "runs" / "seed1.json").write_text("{}")
    assert provenance.code_facts(checkout)["dirty"] is False
    (checkout / "model" / "gpt.py").write_text("width = 3\n")
    assert provenance.code_facts(checkout)["dirty"] is True


def test_no_checkout_or_one_around_it_is_not_ours(checkout, tmp_path_factory):
    inner = checkout / "vendored"
    inner.mkdir()
    for root in (inner, tmp_path_factory.mktemp("plain")):
        facts = provenance.code_facts(root)
        assert facts["commit"] is None and facts["dirty"] is None


def test_the_code_hash_follows_what_makes_the_numbers(checkout, tmp_path_factory):
    before = provenance.code_hash(checkout)
    (checkout / "README.md").write_text("other words\n")
    (checkout / "model" / "notes.txt").write_text("no code\n")
    assert provenance.code_hash(checkout) == before
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(checkout, copy)
    assert provenance.code_hash(copy) == before
    (copy / "model" / "gpt.py").rename(copy / "model" / "renamed.py")
    assert provenance.code_hash(copy) != before
    (checkout / "train.py").write_text("steps = 2\n")
    assert provenance.code_hash(checkout) != before


def test_bytes_that_move_from_one_file_to_the_next_are_another_code(tmp_path):
    def project(name: str, first: str, second: str) -> Path:
        root = tmp_path / name
        (root / "model").mkdir(parents=True)
        (root / "model" / "a.py").write_text(first)
        (root / "model" / "b.py").write_text(second)
        return root

    one, two = project("one", "x = 1\n", ""), project("two", "", "x = 1\n")
    assert provenance.code_hash(one) != provenance.code_hash(two)


def test_versions_and_device_are_named():
    found = provenance.versions()
    assert found["torch"] == torch.__version__
    assert all(found[name] for name in ("python", "numpy", "hydra-core", "safetensors", "wandb"))
    device = provenance.device_facts(torch.device("cpu"))
    assert device["kind"] == "cpu" and device["name"]
    assert device["threads"] == torch.get_num_threads()
