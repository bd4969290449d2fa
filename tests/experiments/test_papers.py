import csv
import re
from io import StringIO

import pytest

from experiments.papers import csv as csv_text
from experiments.papers import latex
from experiments.runs import load_table
from experiments.spec import load_spec
from experiments.table import main


@pytest.fixture
def table(small_case, small_runs):
    return load_table(load_spec(small_case), small_runs)


def test_latex_has_intervals_n_and_bold_only_where_resolved(table):
    text = latex(table, "python -m experiments.table small_case")
    rows = [line.split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(row) for row in rows}) == 1
    assert rows[1][:4] == ["none", "3", "2.610", "4.010 [3.985, 4.035]"]
    by_name = {row[0]: row[-1] for row in rows}
    assert by_name["standard 0.2"] == r"\textbf{$-$0.121 [$-$0.123, $-$0.119]} \\"
    assert by_name["learned"] == r"$-$0.040 [$-$0.167, 0.087] \\"
    assert text.count(r"\textbf") == 1
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1


def test_what_latex_would_run_or_choke_on_is_text(small_case, small_runs):
    spec = load_spec(small_case)
    hostile = spec.model_copy(update={"title": r"\input{/etc/passwd} 50% of $x_1 & #2"})
    caption = re.search(r"\\caption\{(.*)\}", latex(load_table(hostile, small_runs), "c"))[1]
    assert caption.startswith(r"\textbackslash{}input\{/etc/passwd\} 50\% of \$x\_1 \& \#2. ")
    assert r"\\%" not in caption


def test_csv_has_every_digit_and_a_column_for_every_number(table):
    lines = list(csv.DictReader(StringIO(csv_text(table))))
    assert [line["row"] for line in lines] == ["none", "standard_0.2", "learned", "unborn"]
    none = lines[0]
    assert float(none["val_mean"]) == table.rows["none"].mean("val")
    assert (none["val_n"], none["state"]) == ("3", "finished")
    assert lines[1]["val_minus_none_verdict"] == "lower"
    assert lines[3]["val_mean"] == ""


@pytest.mark.parametrize(("name", "suffix"), [("latex", "tex"), ("csv", "csv")])
def test_a_format_is_written_beside_the_page(
    name, suffix, small_case, small_runs, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([small_case, "--runs", str(small_runs), "--format", name]) == 0
    assert capsys.readouterr().out == f"runs/tables/small_case.{suffix}\n"
