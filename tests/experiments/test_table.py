"""The page of a table: a golden one, and what it says when things are missing.

After a change that is meant, look at the page that the failing test names, and if it is right copy
it to golden/small_case.md.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.page import render
from experiments.runs import load_table
from experiments.spec import load_spec, table_names
from experiments.table import main

GOLDEN = Path(__file__).parent / "golden" / "small_case.md"
COMMAND = "python -m experiments.table small_case"


def test_the_small_case_is_its_golden_page(small_case, small_runs, tmp_path):
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    made = tmp_path / "page.md"
    made.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8"), f"look at {made}"


def test_the_command_writes_the_page_and_says_where(small_case, small_runs, tmp_path, capsys):
    out = tmp_path / "deep" / "page.md"
    assert main([small_case, "--runs", str(small_runs), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text(encoding="utf-8").startswith("# A small case\n")


def test_what_failed_to_reproduce_comes_before_any_result(small_case, small_runs):
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == [
        "## What did not reproduce, and what did",
        "## Not finished",
        "## Final loss",
        "## Best val loss",
        "## Held-out test loss",
        "## Paired differences",
        "## How sure one figure is",
        "## Beside the published figures",
        "## Size and cost",
    ]


def test_every_table_of_a_page_is_narrow(small_case, small_runs):
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    assert max(line.count("|") for line in page.splitlines() if "\\|" not in line) <= 9


def test_one_seed_has_no_interval_and_no_winner(small_case, write, make_record, tmp_path):
    for row, val in (("none", 4.0), ("standard_0.2", 3.0), ("learned", 5.0)):
        write(make_record(row, 1, val, 2.6))
    page = render(load_table(load_spec(small_case), tmp_path / "runs"), COMMAND)
    assert "one seed, ± 0.012" in page
    assert "[" not in page  # every interval is written in brackets
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert not [line for line in rows if "lower |" in line or "higher |" in line]
    assert not [line for line in rows if "reproduced" in line or "contradicted" in line]


def test_a_test_split_that_was_not_read_has_no_place(small_case, write, make_record, tmp_path):
    for seed in (1, 2, 3):
        record = make_record("none", seed, 4.0, 2.6)
        del record["test"]
        write(record)
    page = render(load_table(load_spec(small_case), tmp_path / "runs"), COMMAND)
    assert "test loss" not in page and "est val loss" in page


def test_no_choice_is_made_on_the_test_split(small_case, small_runs, write, make_record):
    """standard_0.3 has the lower test loss, and is not the best standard by it."""
    path = Path(small_case)
    rows = "  - {name: standard_0.3, label: standard 0.3, family: standard}\n"
    text = path.read_text().replace("  - name: learned\n", rows + "  - name: learned\n")
    path.write_text(text.replace("[standard_0.2]", "[standard_0.2, standard_0.3]"))
    for seed in (1, 2, 3):
        write(make_record("standard_0.3", seed, 4.2, 3.7, test__final={"test/loss_nats": 1.0}))
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    section = page.split("### Final test loss, against the best standard dropout")[1]
    assert section.split("\n")[2].startswith(
        "Chosen: **standard 0.2**, lowest in mean final val loss of standard 0.2, standard 0.3."
    )


def test_failed_and_missing_rows_are_named_with_their_errors(small_case, small_runs):
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert "| learned | 3 | failed | loss is nan at step 17 \\| block3 see log.txt |" in lines
    assert "| unborn | – | not run | – |" in lines
    assert "Over common seeds only, where one side lacks some: learned: 1, 2." in lines


def test_uncommitted_changes_and_unequal_machines_are_said(
    small_case, small_runs, write, make_record
):
    changes = {"code__dirty": True, "device__threads": 8, "config__optimizer": {"lr": 1e-3}}
    write(make_record("unborn", 1, 4.0, 2.6, **changes))
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    assert "**1 of them from a tree with uncommitted changes.**" in page
    assert "compare no speeds" in page
    assert "2; 8: unborn/seed1.json" in page
    assert "`optimizer.lr`: 0.002, but 0.001 in unborn" in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code__files": {"train.py": "0dd"}}, "`train.py` is "),
        ({"metrics": {}}, "`metrics.train/loss_nats` is missing"),
    ],
)
def test_errors_leave_with_2_and_one_line(
    small_case, small_runs, write, make_record, tmp_path, capsys, changes, said
):
    write(make_record("unborn", 1, 4.0, 2.6, **changes))
    out = tmp_path / "page.md"
    assert main([small_case, "--runs", str(small_runs), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_an_unknown_table_leaves_with_2_and_the_names(capsys):
    assert main(["publishd"]) == 2
    assert "adapters_nano, published_nano" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_an_error_in_a_line(small_case, small_runs, capsys):
    assert main([small_case, "--runs", str(small_runs), "--out", f"{small_case}/page.md"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_list_names_every_table(capsys):
    assert main(["--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == table_names()


def test_no_table_at_all_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "which table?" in capsys.readouterr().err


def test_tables_and_figures_need_no_torch():
    code = "import sys, experiments.table, experiments.figures; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(
    ("kernels", "said"),
    [(False, "yes; no: unborn/seed1.json"), (None, "yes; unknown: unborn/seed1.json")],
)
def test_runs_with_and_without_kernels_are_told_apart(
    kernels, said, small_case, small_runs, write, make_record
):
    write(make_record("unborn", 1, 4.0, 2.6, device__compiled_kernels=kernels))
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    assert "threads, kernels or compile differ between these runs: compare no speeds" in page
    assert said in page
