import pytest

from experiments.reproduction import beside_published, judge, reproduction
from experiments.runs import load_table
from experiments.spec import load_spec


@pytest.fixture
def judged(write, make_record, small_case, tmp_path):
    """The small case with vals of (none, standard 0.2, learned) at three seeds, and its text."""

    def make(none, standard, learned):
        rows = {"none": none, "standard_0.2": standard, "learned": learned}
        for row, val in rows.items():
            for seed, noise in ((1, 0.001), (2, -0.001), (3, 0.0)):
                write(make_record(row, seed, val + seed / 10 + noise * len(row), 2.6))
        return load_table(load_spec(small_case), tmp_path / "runs")

    return make


def test_published_orders_that_hold_are_reproduced(judged):
    table = judged(none=4.2, standard=4.0, learned=4.1)
    assert [verdict for _, _, verdict in judge(table)] == ["reproduced"] * 3
    assert "contradict **0**, leave **0** open and reproduce **3**" in reproduction(table)
    assert "- ours: standard 0.2 < learned < none" in reproduction(table)


def test_failures_come_first_and_are_named_in_words(judged):
    table = judged(none=4.1, standard=4.0, learned=4.2)
    text = reproduction(table)
    assert [verdict for _, _, verdict in judge(table)] == ["contradicted", *["reproduced"] * 2]
    assert "Contradicted: learned below none in val." in text
    assert text.index("| contradicted") < text.index("| reproduced")


def test_what_the_interval_does_not_support_is_left_open(judged):
    table = judged(none=4.1, standard=4.1, learned=4.1)
    text = reproduction(table)
    assert [verdict for _, _, verdict in judge(table)] == ["not resolved"] * 3
    assert "contradict **0**, leave **3** open and reproduce **0**" in text
    ours = next(line for line in text.splitlines() if line.startswith("- ours"))
    assert ours.count("≈") == 2
    assert "<" not in ours


def test_rows_not_run_leave_their_orders_open(write, make_record, small_case, tmp_path):
    write(make_record("none", 1, 4.0, 2.6))
    table = load_table(load_spec(small_case), tmp_path / "runs")
    assert {verdict for _, _, verdict in judge(table)} == {
        "learned: not run",
        "standard 0.2: not run",
    }


def test_where_the_document_contradicts_itself_the_table_says_so():
    spec = load_spec("published_nano")
    rows = {row.name: row for row in spec.rows}
    first = {name: rows[name].published[1] for name in ("learned", "learned_no_penalty")}
    assert first["learned"].val > first["learned_no_penalty"].val
    assert rows["learned"].published[0].val < rows["learned_no_penalty"].published[0].val


def test_both_versions_of_a_published_figure_are_shown_and_marked(judged):
    text = beside_published(judged(4.2, 4.0, 4.1))
    assert "3.400 (first: 3.600)" in text
    assert "0.6000 (first: 8.00e-9)" in text
    assert "| standard 0.2 ¹ |" in text
    assert "¹ evaluated with noise" in text


def test_a_table_without_published_figures_has_neither_part(write, make_record, tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text("title: t\ncommand: c\nrows: [{name: none, label: none, family: none}]\n")
    write(make_record("none", 1, 4.0, 2.6))
    table = load_table(load_spec(str(path)), tmp_path / "runs")
    assert (reproduction(table), beside_published(table)) == ("", "")
