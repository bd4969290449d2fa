import matplotlib as mpl
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from common.errors import UserError
from experiments.along import along
from experiments.along_train import val_against_train
from experiments.figures import (
    draw,
    final_val,
    main,
    mean_curve,
    save,
    val_curves,
    val_difference,
)
from experiments.forest import forest, limit
from experiments.looks import LOOKS, looks
from experiments.runs import load_table, own_table
from experiments.spec import load_spec, table_names

mpl.use("agg")


@pytest.fixture
def table(small_case, small_runs):
    yield load_table(load_spec(small_case), small_runs)
    plt.close("all")


@pytest.mark.parametrize(
    ("suffix", "head"), [("svg", b"<svg"), pytest.param("pdf", b"%PDF-", marks=pytest.mark.slow)]
)
def test_every_figure_is_written(table, tmp_path, suffix, head):
    names = [path.name for path in draw(table, tmp_path / "figures", suffix)]
    figures = ("curves", "val", "difference", "gap", "fit")
    assert names == [f"small_case_{name}.{suffix}" for name in figures]
    for name in names:
        assert head in (tmp_path / "figures" / name).read_bytes()


@pytest.mark.parametrize(
    ("suffix", "date"),
    [("svg", b"<dc:date>"), pytest.param("pdf", b"/CreationDate", marks=pytest.mark.slow)],
)
def test_the_same_records_give_the_same_bytes(table, tmp_path, suffix, date):
    first, second = (draw(table, tmp_path / name, suffix) for name in ("first", "second"))
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert date not in a.read_bytes()


def test_a_mean_curve_has_the_steps_that_every_seed_has(small_case, write, make_record, tmp_path):
    curve = [{"step": 100, "val/loss_nats": 5.0}, {"step": 200, "val/loss_nats": 4.0}]
    write(make_record("none", 1, 4.0, 2.6, curve=curve))
    write(make_record("none", 2, 4.0, 2.6, curve=[{"step": 200, "val/loss_nats": 4.5}]))
    runs = load_table(load_spec(small_case), tmp_path / "runs").rows["none"]
    assert mean_curve(runs).reset_index().to_numpy().tolist() == [[200.0, 4.25, 4.0, 4.5]]


def test_every_finished_row_has_its_panel_with_its_name(table):
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in val_curves(table).axes]
    assert titles == ["none", "standard 0.2", "learned"]


def test_no_curve_stands_above_an_unlabelled_axis_nor_writes_beyond_its_panel(
    write, make_record, tmp_path
):
    for number in range(6):  # four columns: two panels above empty cells
        write(make_record(f"row{number}", 1, 4.0, 2.6))
    figure = val_curves(own_table(tmp_path / "runs"))
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    labelled = [axes.xaxis.get_tick_params()["labelbottom"] for axes in panels]
    assert labelled == [False, False, True, True, True, True]
    for axes in panels:
        (number,) = axes.texts
        assert number.get_window_extent().x1 <= axes.get_window_extent().x1 + 1


def test_only_supported_differences_are_filled(table):
    axes = val_difference(table).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    marks = [line for line in axes.lines if line.get_marker() not in ("", "None", None)]
    filled = [colors.to_hex(mark.get_markerfacecolor()) != "#ffffff" for mark in marks]
    assert dict(zip(labels, filled, strict=True)) == {"standard 0.2": True, "learned": False}


def test_one_seed_can_be_drawn(small_case, write, make_record, tmp_path):
    for row in ("none", "learned"):
        write(make_record(row, 1, 4.0, 2.6))
    table = load_table(load_spec(small_case), tmp_path / "runs")
    assert len(draw(table, tmp_path / "figures")) == 5
    assert "support no order" in val_difference(table).get_supxlabel()


def test_a_table_without_pairs_has_no_figure_of_differences(
    small_case, write, make_record, tmp_path
):
    write(make_record("none", 1, 4.0, 2.6))
    table = load_table(load_spec(small_case), tmp_path / "runs")
    assert val_difference(table) is None


def test_families_differ_in_marker_and_in_lightness():
    assert len({look.marker for look in LOOKS}) == len(LOOKS)
    grey = [sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), colors.to_rgb(look.color), strict=True))
            for look in LOOKS]  # fmt: skip
    assert all(abs(a - b) > 0.1 for i, a in enumerate(grey) for b in grey[:i])


@pytest.mark.parametrize("name", table_names())
def test_no_table_has_more_families_than_looks(name):
    assert len(looks(load_table_of(name))) <= len(LOOKS)


def load_table_of(name):
    from experiments.runs import Table

    return Table(load_spec(name), {})


def test_a_table_without_finished_runs_is_an_error_in_a_line(
    small_case, write, make_record, tmp_path, capsys
):
    write(make_record("none", 1, 0, 0, status="failed", metrics=None))
    arguments = [small_case, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "figures")]
    assert main(arguments) == 2
    assert "no finished run: nothing to draw" in capsys.readouterr().err
    write(make_record("none", 2, 4.0, 2.6))
    assert main(arguments) == 0


def test_a_wild_row_does_not_stretch_the_others_scale(small_case, write, make_record, tmp_path):
    for seed, val in enumerate((4.0, 4.01, 4.02), start=1):
        write(make_record("none", seed, val + 0.2, 2.6))
        write(make_record("standard_0.2", seed, val, 2.6))
        write(make_record("learned", seed, val + 10 * (seed == 2), 2.6))
    table = load_table(load_spec(small_case), tmp_path / "runs")
    axes = final_val(table).axes[0]
    low, high = axes.get_xlim()
    assert low < 4.0 and 4.2 < high < 5
    arrows = [line.get_marker() for line in axes.lines if line.get_marker() in ("<", ">")]
    assert sorted(arrows) == ["<", ">"]


def test_rows_of_one_seed_do_not_make_the_others_wild():
    _, axes = forest(3)
    limit(axes, [(0.0, 0.0), (0.1, 0.1), (0.5, 0.6)])
    assert axes.get_xlim()[1] > 0.6
    assert not axes.lines  # no arrow


ALONG = """
title: Along a setting
command: python train.py table=along
along: optimizer.weight_decay
rows:
  - {name: none_a, label: "none, decay 0.1", family: none}
  - {name: none_b, label: "none, decay 1", family: none}
  - {name: none_c, label: "none, epochs, decay 1", family: none}
  - {name: low_a, label: "standard 0.1, decay 0.1", family: standard}
  - {name: high_a, label: "standard 0.2, decay 0.1", family: standard}
  - {name: high_c, label: "standard 0.2, epochs, decay 1", family: standard}
"""


def test_along_a_setting_each_kind_has_a_line_of_its_own_look(write, make_record, tmp_path):
    (tmp_path / "along.yaml").write_text(ALONG)
    for row, decay, val in (
        *(("none_a", 0.1, 4.3), ("none_b", 1.0, 3.9), ("none_c", 1.0, 3.8)),
        *(("low_a", 0.1, 3.82), ("high_a", 0.1, 3.85), ("high_c", 1.0, 3.9)),
    ):
        for seed in (1, 2):
            changes = {"config__optimizer": {"weight_decay": decay}, "table": "along"}
            ema = {"metrics__val/ema_loss_nats": val - 0.2}
            write(make_record(row, seed, val + seed / 100, 2.6, **changes, **ema))
    figure = along(load_table(load_spec(str(tmp_path / "along.yaml")), tmp_path / "runs"))
    first, averaged, epochs, _ = figure.axes
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    assert titles == [
        "last weights",
        "averaged weights",
        "last weights, epochs",
        "averaged weights, epochs",
    ]
    none = first.lines[0]
    assert list(none.get_xdata()) == [0, 1]
    assert list(none.get_ydata()) == pytest.approx([4.315, 3.915])
    assert list(averaged.lines[0].get_ydata()) == pytest.approx([4.1, 3.7])
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"none", "standard 0.1", "standard 0.2"}
    dashed = [line for line in epochs.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 1  # standard 0.2, as in the panel where 0.1 is drawn as well


def test_a_row_without_the_setting_is_a_level_line(write, make_record, tmp_path):
    text = ALONG.replace("optimizer.weight_decay", "dropout.penalty_weight.max")
    added = '  - {name: low_b, label: "standard 0.1, decay 1", family: standard}\n'
    (tmp_path / "along.yaml").write_text(text + added)
    write(make_record("none_b", 1, 3.9, 2.6, config__dropout={"name": "none"}, table="along"))
    for row, price, val in (("low_a", 0.1, 3.8), ("low_b", 1, 3.7)):
        changes = {"config__dropout": {"name": "x", "penalty_weight": {"max": price}}}
        write(make_record(row, 1, val, 2.6, **changes, table="along"))
    figure = along(load_table(load_spec(str(tmp_path / "along.yaml")), tmp_path / "runs"))
    (panel,) = figure.axes  # rows in it lack averaged weights, and "none" has no price
    levels = [list(line.get_ydata()) for line in panel.lines]
    assert levels == [[3.9, 3.9], [3.8, 3.7]]
    assert panel.get_xlabel() == "penalty weight max"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["none", "standard 0.1"]


def test_a_table_along_nothing_has_no_such_figure(table):
    assert along(table) is None


def test_of_more_rows_than_a_picture_shows_there_are_no_curves(write, make_record, tmp_path):
    for n in range(25):
        write(make_record(f"none_{n}", 1, 4.0, 2.6))
    assert val_curves(own_table(tmp_path / "runs")) is None


def test_a_suffix_that_is_no_pictures_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'x\.doc': one of .*svg"):
        save(plt.figure, tmp_path / "x.doc")
    assert not plt.get_fignums()


def test_val_against_train_has_the_reference_thick_and_every_row_beside_it(table):
    axes = val_against_train(table).axes[0]
    widths = [line.get_linewidth() for line in axes.lines if len(line.get_xdata()) > 1]
    assert len(widths) == 3 and widths.count(max(widths)) == 1
    assert axes.get_title() == "thick: none"
    left, right = axes.get_xlim()
    assert left > right  # train loss falls to the right


def test_one_row_alone_has_no_other_to_be_set_beside(small_case, write, make_record, tmp_path):
    write(make_record("none", 1, 4.0, 2.6))
    assert val_against_train(load_table(load_spec(small_case), tmp_path / "runs")) is None
