"""Which rate: what the rule and a fixed rate lose, over made-up rows of which the best is known."""

import json
from pathlib import Path

import pytest

from experiments.pairs import points, rate_of
from experiments.rates import Choice, choices, which_rate
from experiments.runs import load_table
from experiments.spec import load_spec


def test_the_rule_takes_the_smallest_rate_that_is_mild_or_the_largest() -> None:
    gains = {0.0: 0.0, 0.1: -0.3, 0.2: -0.2}
    one = Choice("a", "standard", (3, 4), gains, {0.0: 0.4, 0.1: 0.2, 0.2: 0.05})
    assert (one.chosen, one.best) == (0.2, 0.1)
    assert one.lost(0.2) == pytest.approx(0.1)
    assert one.lost(0.1) == 0
    assert one.lost(0.3) is None
    assert Choice("a", "standard", (3, 4), gains, {0.0: 0.4, 0.1: 0.2, 0.2: 0.1}).chosen == 0.2
    assert Choice("a", "standard", (3, 4), gains, {0.0: 0.07, 0.1: 0.0, 0.2: 0.0}).chosen == 0


def test_a_kind_is_told_from_its_rate() -> None:
    assert rate_of("layer group 0.05") == ("layer group", 0.05)
    assert rate_of("learned everywhere") == ("learned everywhere", None)
    assert rate_of("learned") == ("learned", None)


def test_a_setting_of_several_rates_is_a_line(make_record, tmp_path: Path) -> None:
    course = {"none": (4.0, 4.4), "standard_0.2": (3.9, 3.95), "standard_0.3": (4.1, 4.1)}
    for row, (lowest, last) in course.items():
        for seed in (1, 2, 3):
            curve = [
                {"step": step, "val/loss_nats": val, "train/loss_nats": 3.0}
                for step, val in ((10, lowest), (20, last))
            ]
            record = make_record(row, seed, last, 3.0, config__dropout={"name": row}, curve=curve)
            path = tmp_path / row / f"seed{seed}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(record))
    found = points({"published_nano": load_table(load_spec("published_nano"), tmp_path)})
    (one,) = choices(found)
    assert one.rises == pytest.approx({0: 0.4, 0.2: 0.05, 0.3: 0})
    assert one.gains == pytest.approx({0: 0, 0.2: -0.45, 0.3: -0.3})
    text = which_rate(found)
    assert "it finds 1 of 1" in text
    assert "**holds**" in text
    assert "| always 0.3 | 1 | 0.150 | 0.150 | 0.000 |" in " ".join(text.split())
