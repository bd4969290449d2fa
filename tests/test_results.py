"""The committed records and pages, as someone finds them who adds a dropout or edits one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import recipe_files
from tracking.provenance import changed_files

ROOT = Path(__file__).parents[1]
TABLE = "published_nano"
LEARNED = Path("dropout/learned.py")
RECORDS = sorted((ROOT / "results" / "runs").glob("*/*/seed*.json"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, to be changed."""
    copy = tmp_path / "repository"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "wandb")

    def ignore(folder: str, names: list[str]) -> set[str]:
        return left_out(folder, names) | ({"runs"} if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy


def changed(root: Path) -> dict[str, set[str]]:
    """For each row of the table, which files of its records compute something else there."""
    found: dict[str, set[str]] = {}
    for path in RECORDS:
        if path.parts[-3] == TABLE:
            files = json.loads(path.read_text())["code"]["files"]
            found.setdefault(path.parts[-2], set()).update(changed_files(files, root))
    return found


def test_the_page_of_a_table_is_made_again_byte_for_byte_beside_a_new_dropout(copy: Path) -> None:
    for path, text in recipe_files().items():
        (copy / path).write_text(text, encoding="utf-8")
    page = copy / "results" / "tables" / f"{TABLE}.md"
    page.unlink()
    subprocess.run([sys.executable, "-m", "experiments.table", TABLE], cwd=copy, check=True)
    assert page.read_bytes() == (ROOT / "results" / "tables" / page.name).read_bytes()


def test_a_docstring_voids_no_record(copy: Path) -> None:
    text = (copy / LEARNED).read_text()
    assert text.startswith('"""')
    (copy / LEARNED).write_text(text.replace('"""', '"""Said anew. ', 1))
    assert changed(copy) == changed(ROOT)


def test_a_constant_voids_the_records_that_it_made_and_no_others(copy: Path) -> None:
    text = (copy / LEARNED).read_text()
    assert text.count("math.pi + 1e-4") == 1
    (copy / LEARNED).write_text(text.replace("math.pi + 1e-4", "math.pi + 1e-3"))
    before, after = changed(ROOT), changed(copy)
    for row in after:
        is_learned = row.startswith("learned")
        assert after[row] - before[row] == ({str(LEARNED)} if is_learned else set()), row
    assert any(row.startswith("learned") for row in after) and "none" in after


def test_records_of_one_table_name_their_code() -> None:
    assert RECORDS and all(json.loads(path.read_text())["code"]["commit"] for path in RECORDS)
