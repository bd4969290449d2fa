"""The committed records and pages, as someone finds them who adds a dropout or edits one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import recipe_files
from tracking.provenance import changed_files, code_digest

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
        others = {ROOT: {"runs"}, ROOT / "results" / "runs": {*names} - {TABLE}}
        return left_out(folder, names) | others.get(Path(folder), set())

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
    assert made_again(copy) == (ROOT / "results" / "tables" / f"{TABLE}.md").read_bytes()


def made_again(copy: Path, *options: str) -> bytes:
    page = copy / "results" / "tables" / f"{TABLE}.md"
    page.unlink(missing_ok=True)
    command = [sys.executable, "-m", "experiments.table", TABLE, *options]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    return page.read_bytes() if page.exists() else b""


def test_every_record_of_the_table_is_of_this_code() -> None:
    assert changed(ROOT) and not any(changed(ROOT).values())


def test_a_docstring_voids_no_record_and_no_table(copy: Path) -> None:
    text = (copy / LEARNED).read_text()
    assert text.startswith('"""')
    (copy / LEARNED).write_text(text.replace('"""', '"""Said anew. ', 1))
    assert not any(changed(copy).values())
    assert made_again(copy) == (ROOT / "results" / "tables" / f"{TABLE}.md").read_bytes()


def test_a_constant_voids_the_records_that_it_made_and_no_others(copy: Path) -> None:
    text = (copy / LEARNED).read_text()
    assert text.count("math.pi + 1e-4") == 1
    (copy / LEARNED).write_text(text.replace("math.pi + 1e-4", "math.pi + 1e-3"))
    for row, files in changed(copy).items():
        assert files == ({str(LEARNED)} if row.startswith("learned") else set()), row
    with pytest.raises(subprocess.CalledProcessError) as refused:
        made_again(copy, "--add", str(new_run(copy, "learned")))
    assert str(LEARNED) in refused.value.stderr.decode()
    made_again(copy, "--add", str(new_run(copy, "none")))


def new_run(copy: Path, row: str) -> Path:
    """The folder of a row with a run of another seed, as the copy's code would record it."""
    record = json.loads((copy / f"results/runs/{TABLE}/{row}/seed1.json").read_text())
    files = record["code"]["files"]
    files |= {name: code_digest(copy / name) for name in files}
    folder = copy / "runs" / TABLE / row
    (folder / "seed9-0123abcd").mkdir(parents=True)
    content = {**record, "seed": 9, "config": {**record["config"], "seed": 9}}
    (folder / "seed9-0123abcd" / "record.json").write_text(json.dumps(content))
    return folder


def test_every_record_names_its_code() -> None:
    assert RECORDS and all(json.loads(path.read_text())["code"]["commit"] for path in RECORDS)
