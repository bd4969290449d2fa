"""The texts that commands of `data/` write: modules of Python, and images."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest

from data import digits, python_library
from data.batches import Batches
from data.prepare import prepare


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Forty images in the place of scikit-learn's."""
    pixels = np.random.default_rng(0).integers(0, 17, (40, 64)).astype(float)
    pixels[:, 0] = 0
    sklearn, datasets = ModuleType("sklearn"), ModuleType("sklearn.datasets")
    datasets.load_digits = lambda **_: (pixels, np.arange(40) % 10)
    monkeypatch.setitem(sys.modules, "sklearn", sklearn)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    return pixels


def ask(monkeypatch: pytest.MonkeyPatch, command: ModuleType, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    return command.main()


def test_an_image_is_a_window(images, monkeypatch, tmp_path):
    out = tmp_path / "digits.jsonl"
    assert ask(monkeypatch, digits, str(out)) == 0
    config = {
        "source": "files", "paths": str(out), "tokenizer": "numbers", "vocab_size": 18,
        "cache_dir": str(tmp_path / "tokens"), "num_proc": 1,
    }  # fmt: skip
    tokens = prepare(config, 64)
    seen = []
    for split in tokens.splits:
        batches = Batches(tokens.tokens(split), 64, "cpu", tokens.end_of_text)
        windows = tokens.tokens(split)[: batches.n_tokens // 64 * 64].reshape(-1, 64)
        assert (windows[:, -1] == 17).all()
        seen += windows[:, :-1].tolist()
    assert sorted(seen) == sorted(images[:, 1:].astype(int).tolist())


def test_scikit_learns_images_are_these():
    pytest.importorskip("sklearn")
    found = list(digits.records())
    assert len(found) == 1797
    assert {len(one["text"]) for one in found} == {63}
    assert {pixel for one in found for pixel in one["text"]} == set(range(17))


def test_without_scikit_learn_it_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert ask(monkeypatch, digits, str(tmp_path / "digits.jsonl")) == 2
    assert "pip install -c constraints.txt -e '.[digits]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_library_is_its_modules_without_tests_and_packages_from_elsewhere(tmp_path):
    def write(place: str, text: bytes) -> None:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)

    write("b.py", b"import a\n")
    write("a/__init__.py", b"x = 1\n")
    write("a/test/test_x.py", b"assert False\n")
    write("site-packages/other.py", b"y = 1\n")
    write("empty.py", b"\n")
    write("latin.py", b"# \xe9\n")
    assert list(python_library.articles(tmp_path)) == [
        {"text": "x = 1", "topic": "a"},
        {"text": "import a", "topic": "b"},
    ]


def test_pythons_own_library_is_written(monkeypatch, capsys, tmp_path):
    out = tmp_path / "python.jsonl"
    assert ask(monkeypatch, python_library, str(out)) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) > 300
    assert {"argparse", "json"} <= {line["topic"] for line in lines}
    assert f"{len(lines)} modules of Python" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_a_line(monkeypatch, capsys, tmp_path):
    assert ask(monkeypatch, python_library, str(tmp_path / "no" / "python.jsonl")) == 2
    assert capsys.readouterr().err.endswith("name a file in a folder that there is\n")


@pytest.mark.parametrize("command", [digits, python_library])
def test_no_place_to_write_to_is_a_usage_error(command, monkeypatch, capsys):
    assert ask(monkeypatch, command) == ask(monkeypatch, command, "--help") == 2
    assert f"usage: python -m {command.__name__} OUT.jsonl" in capsys.readouterr().err
