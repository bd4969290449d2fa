import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ops import native
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
        (root / "train.py").write_text("steps = 1\n")
        facts = provenance.code_facts(root)
        assert facts["commit"] is None and facts["dirty"] is None


SOURCE = '''"""A module."""

from math import pi  # why not


class Circle:
    """Round."""

    def area(self, radius: float) -> float:
        """In the radius's unit, squared."""
        return pi * radius**2
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A module.", "Another sentence about the module.", True),
        ("  # why not", "", True),
        ("pi * radius**2", "(\n            pi * radius**2\n        )", True),
        ('        """In the radius\'s unit, squared."""\n', "", True),
        ("radius**2", "radius**3", False),
        ("def area", "def disc", False),
        ("pi * radius**2", '"no docstring" * 2', False),
    ],
)
def test_a_files_digest_is_of_what_it_computes(tmp_path, old, new, same):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text(SOURCE)
    other.write_text(SOURCE.replace(old, new))
    assert old in SOURCE
    assert (provenance.code_digest(one) == provenance.code_digest(other)) == same


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('int f() { // of nothing\n  return "//"[0]; }', True),
        ('int f() {/* of\nnothing */ return "//"[0];}', True),
        ('int f() { return "//"[1]; }', False),
        ('int f() { return "/"[0]; }', False),
    ],
)
def test_a_kernels_digest_leaves_out_comments_and_white_space(tmp_path, text, same):
    one, other = tmp_path / "one.cpp", tmp_path / "other.cpp"
    one.write_text('int f() { return "//"[0]; }')
    other.write_text(text)
    assert (provenance.code_digest(one) == provenance.code_digest(other)) == same


def test_the_used_files_are_those_imported_and_no_others():
    """In a process of its own: the tests import everything."""
    code = """if True:
        import sys
        import dropout.standard, training.step, cli.errors
        from tracking.provenance import used_files
        print(*used_files())
    """
    root = Path(__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    used = set(said.stdout.split())
    assert {"train.py", "common/streams.py", "dropout/standard.py", "model/gpt.py"} <= used, said
    assert not {"dropout/learned.py", "dropout/channel.py", "cli/errors.py"} & used
    if native.library() is not None:
        assert "ops/kernels/attention.cpp" in used


def test_what_changed_since_a_run_is_named(checkout):
    files = {name: provenance.code_digest(checkout / name) for name in ("train.py", "model/gpt.py")}
    assert provenance.changed_files(files, checkout) == []
    (checkout / "train.py").write_text("steps = 1  # as before\n")
    assert provenance.changed_files(files, checkout) == []
    (checkout / "model" / "gpt.py").write_text("width = 3\n")
    assert provenance.changed_files(files | {"dropout/gone.py": "0"}, checkout) == [
        "model/gpt.py",
        "dropout/gone.py",
    ]


def test_versions_and_device_are_named():
    found = provenance.versions()
    assert found["torch"] == torch.__version__
    assert all(found[name] for name in ("python", "numpy", "hydra-core", "safetensors", "wandb"))
    device = provenance.device_facts(torch.device("cpu"))
    assert device["kind"] == "cpu" and device["name"]
    assert device["threads"] == torch.get_num_threads()
