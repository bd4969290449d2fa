import pytest

from experiments.other_masks import other_masks
from experiments.page import render
from experiments.publish import publish
from experiments.runs import load_table
from experiments.spec import load_spec


@pytest.fixture
def with_masks(small_runs, write, make_record):
    """Two seeds of learned, evaluated under other masks."""
    for seed, own in ((1, 3.95), (2, 3.99)):
        losses = {"own": own, "other": own + 0.02, "mean": own + 0.1 * seed, "random": own - 0.01}
        write(make_record("learned", seed, own, 2.78, masks={"val": losses}))
    return small_runs


def test_other_masks_stand_beside_a_models_own(with_masks, small_case):
    table = load_table(load_spec(small_case), with_masks)
    lines = [line for line in other_masks(table).splitlines() if line.startswith("|")]
    assert len(lines) == 3
    cells = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
    assert cells[:4] == ["learned", "2", "3.970", "+0.020"]
    assert cells[5] == "+0.150" and cells[7] == "−0.010"
    assert other_masks(table) in render(table, "make table")


def test_without_such_an_evaluation_a_page_has_no_such_part(small_runs, small_case):
    assert other_masks(load_table(load_spec(small_case), small_runs)) == ""


def test_publishing_again_keeps_them(with_masks, write, make_record, small_case, tmp_path):
    spec, target = load_spec(small_case), tmp_path / "target"
    publish(spec, with_masks, target)
    write(make_record("learned", 1, 3.95, 2.78))  # the same run, as it was before
    publish(spec, with_masks, target)
    assert load_table(spec, target).rows["learned"].values("own_masks") == {1: 3.95, 2: 3.99}
