"""The page of a table: a golden one, and what it says when things are missing.

After a change that is meant, look at the page that the failing test names, and if it is right copy
it to golden/small_case.md.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.figures import main as draw_main
from experiments.page import render
from experiments.runs import compared_with, load_table
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
    said = capsys.readouterr().out
    assert said.endswith(f"\n{out}\n")
    assert "## Final loss" in said and "### Best val loss, against none" in said
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
    assert "Not run: unborn." in lines
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
    assert "must be one of adapters_nano, " in capsys.readouterr().err


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


def test_the_list_waits_for_no_library_of_numbers():
    code = "import sys; from experiments.table import main; main(['--list'])"
    code += "; sys.exit(any(name in sys.modules for name in ('scipy', 'pandas', 'matplotlib')))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0


def test_tables_and_figures_need_no_torch():
    rooms = ("page", "figures", "papers", "publish", "compare")
    imports = ", ".join(f"experiments.{room}" for room in rooms)
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
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


def test_what_comes_from_outside_reaches_a_page_as_text(small_case, small_runs, write, make_record):
    path = Path(small_case)
    path.write_text(
        path.read_text().replace("title: A small", "title: <script>alert(1)</script> |")
    )
    error = "<img src=x onerror=alert(1)> [a](javascript:b)"
    changes = {"data__source": "<b>|`", "code__commit": "`<i>` | no"}
    write(make_record("unborn", 1, 4.0, 2.6, **changes))
    write(make_record("unborn", 2, 0, 0, status="failed", error=error, metrics=None))
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    assert page.startswith("# &lt;script>alert(1)&lt;/script> \\| case\n")
    assert "&lt;img src=x onerror=alert(1)> \\[a\\](javascript:b)" in page
    assert not [tag for tag in ("<script", "<img", "<b>") if tag in page]
    assert "`'<i>' \\| no`" in page  # within a code span nothing is a tag


def test_runs_that_went_on_elsewhere_and_lost_evaluations_are_marked(
    small_case, small_runs, write, make_record, make_start
):
    starts = [make_start(), make_start(300, threads=8)]
    write(make_record("unborn", 1, 4.0, 2.6, starts=starts, missing_evaluations=[200, 1300]))
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    final, best = page.split("\n## Final loss\n")[1].split("\n## Best val loss\n")
    assert "| unborn † " in final and "| none  " in final
    assert "unborn/seed1.json (threads 2, 8 from step 300)" in final
    assert "| unborn ‡ " in best
    assert "unborn/seed1.json (step 200, 1,300)" in best


def test_averaged_weights_have_a_column_where_there_are_any(
    small_case, small_runs, write, make_record
):
    write(make_record("unborn", 1, 4.0, 2.6, **{"metrics__val/ema_loss_nats": 3.777}))
    page = render(load_table(load_spec(small_case), small_runs), COMMAND)
    assert "val, averaged weights" in page
    assert next(line for line in page.splitlines() if "3.777" in line).startswith("| unborn")


def test_any_runs_make_a_table_without_a_file(tmp_path, write, make_record, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        write(make_record("learned", seed, 4.1 + seed / 50, 2.8))
        write(make_record("none", seed, 4.0 + seed / 100, 2.6))
    short = make_record("learned", 1, 5.0, 4.9, config__steps=30)
    folder = tmp_path / "runs" / "learned" / "seed1-0123abcd"
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(short))
    assert main(["--runs", "runs"]) == 0
    said = capsys.readouterr().out
    assert said.endswith("\nruns/tables/runs.md\n")
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert [line for line in lines if line.startswith("| learned,steps=30 | 1 | 4.900 | 5.000")]
    assert [line for line in lines if line.startswith("| learned,steps=null | 3 | 2.800")]
    assert "### Final val loss, against none" in lines


def test_a_folder_without_runs_says_what_it_must_be(tmp_path, capsys):
    assert main(["--runs", str(tmp_path)]) == 2
    assert "must be the folder above the rows" in capsys.readouterr().err


@pytest.fixture
def own_row(tmp_path, make_record):
    """A row of one's own in its run directories, whose runs used one file more."""
    files = {**make_record("none", 1, 0, 0)["code"]["files"], "dropout/shared.py": "f00"}
    for seed in (1, 2, 3):
        val = 3.9 + (0.0, 0.002, 0.001)[seed - 1]
        record = make_record("shared", seed, val, 3.0, code__files=files, table="published_nano")
        folder = tmp_path / "own" / "shared" / f"seed{seed}-0123abcd"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record))
    return tmp_path / "own" / "shared"


def test_a_row_of_ones_own_joins_a_table_and_changes_nothing_else(
    small_case, small_runs, own_row, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    spec = load_spec(small_case)
    before = load_table(spec, small_runs)
    table = load_table(spec, small_runs, [own_row])
    assert {name: table.rows[name] for name in before.rows} == before.rows
    found = {
        one.row.row.name: one for one in compared_with(table, spec.comparisons[0], "val", "val")[1]
    }
    assert found["shared"].difference.interval.mean == pytest.approx(-0.109)
    assert main([small_case, "--runs", str(small_runs), "--add", str(own_row)]) == 0
    assert capsys.readouterr().out.endswith("\nruns/tables/small_case.md\n")
    page = Path("runs/tables/small_case.md").read_text()
    assert "| shared " in page.split("### Final val loss, against none")[1].split("###")[0]
    drawn = draw_main([small_case, "--runs", str(small_runs), "--add", str(own_row)])
    assert drawn == 0 and Path("runs/figures/small_case_difference.svg").is_file()


def test_what_is_no_row_cannot_be_added(small_case, small_runs, tmp_path, capsys):
    assert main([small_case, "--runs", str(small_runs), "--add", str(tmp_path)]) == 2
    assert "must be the folder of a row" in capsys.readouterr().err


def test_a_page_shows_the_figures_that_were_drawn(small_case, small_runs):
    table = load_table(load_spec(small_case), small_runs)
    page = render(table, COMMAND, ["val", "difference"])
    shown, folded = page.split("<summary>More figures</summary>")
    assert "![Paired differences](../figures/small_case_difference.svg)" in shown
    assert "![Final val loss](../figures/small_case_val.svg)" in folded
    assert "## In figures" not in render(table, COMMAND)
