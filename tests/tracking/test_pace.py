"""What a run says at its start: how long it will take, and of which text."""

from types import SimpleNamespace

import pytest

from tests.golden import TINY, composed
from tracking import pace as module
from tracking.pace import Pace
from tracking.report import announce
from training.state import TrainState

FACTS = {
    "parameters": 1,
    "flops_per_token": 1.0,
    "device": {"name": "cpu", "kind": "cpu"},
}


class Clock:
    """Ticks when it is told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_the_forecast_counts_the_closing_evaluations_of_all_windows(monkeypatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    own = ("steps=100", "eval_every=50", "evaluate.windows=4", "evaluate.final_windows=40")
    state = TrainState.build(composed(*TINY, *own))
    pace = Pace(state)
    with pace.paused():  # an evaluation of 4 windows of two splits takes 2 s
        clock.now += 2.0
    told = None
    for step in range(1, 30):
        clock.now += 1.0
        state.progress.step = step
        pace.step_done()
        told = told or pace.forecast()
    # after step 1, which does not count, 5 s of 5 steps: 94 s, the evaluations at 50 and 100, and
    # two closing ones of ten times the windows
    assert told == "about 0:02:18 to go for 94 steps"


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ((), False),
        (("data=files", "data.paths=x"), True),
        (("data=wikipedia",), True),
        (("scale=published", "data=wikipedia"), False),
        (("scale=published", "data=wikitext103"), True),
        (("scale=published",), True),
    ],
)
def test_another_text_than_the_scales_is_warned_of(options, warned, capsys) -> None:
    cfg = composed(*options)
    data = {"train_tokens": 1000, "source": cfg.data.source}
    announce(SimpleNamespace(cfg=cfg), {**FACTS, "data": data})  # type: ignore[arg-type]
    assert ("warning: scale=" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("dropout=learned",), False),
        (("dropout=learned", "dropout.penalty_weight.max=0"), False),
        (("dropout=standard",), False),
        (("dropout=standard", "dropout/slot@dropout.mlp_output=learned"), True),
        (
            (
                "dropout=standard",
                "dropout/slot@dropout.mlp_output=learned",
                "+dropout.penalty_weight.max=0.1",
            ),
            False,
        ),
    ],
)
def test_a_learned_mask_that_nothing_penalises_is_told_of(options, told, capsys) -> None:
    cfg = composed(*options)
    data = {"train_tokens": 1000, "source": "sample"}
    announce(SimpleNamespace(cfg=cfg), {**FACTS, "data": data})  # type: ignore[arg-type]
    assert ("note: learned masks without a penalty" in capsys.readouterr().err) == told
