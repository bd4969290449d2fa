"""The picture of a run's curve: drawn once, not for a short run, and never in the run's way."""

from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from tracking import report
from tracking.curve import SHORTEST_S, draw_curve

METRICS = {"train/loss_nats": 3.0, "train/loss_stderr": 0.1, "val/loss_nats": 3.5,
           "val/loss_stderr": 0.1, "time_s": 60.0, "epoch": 1.0}  # fmt: skip


def record(time_s: float = 60.0, losses=(7.0, 4.0, 4.5)) -> dict:
    curve = [{"step": 10 * i, "train/loss_nats": loss, "val/loss_nats": loss}
             for i, loss in enumerate(losses)]  # fmt: skip
    return {"row": "none", "seed": 1, "time_s": time_s, "curve": curve, "metrics": METRICS,
            "best": {"step": 10, "val/loss_nats": 4.0}, "parameters": 7,
            "data": {"train_tokens": 9}}  # fmt: skip


@pytest.mark.parametrize("losses", [(7.0, 4.0, 4.5), (7.0, None, 4.5), (None, None, None)])
def test_a_curve_is_drawn_once(tmp_path, losses):
    path = draw_curve(record(losses=losses), tmp_path)
    assert path == tmp_path / "curve.svg"
    ElementTree.parse(path)
    before = path.stat().st_mtime_ns
    assert draw_curve(record(), tmp_path) == path and path.stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("short", [record(SHORTEST_S - 1), record(losses=(7.0, 4.0))])
def test_a_short_run_has_none(tmp_path, short):
    assert draw_curve(short, tmp_path) is None and not any(tmp_path.iterdir())


def said(path: Path, capsys) -> str:
    report.print_summary(SimpleNamespace(path=path), record(), [])
    return capsys.readouterr().err


def test_the_summary_names_the_picture_and_outlives_its_failure(tmp_path, capsys):
    assert f"curve: {tmp_path / 'curve.svg'}\n" in said(tmp_path, capsys)
    missing = tmp_path / "gone"
    told = said(missing, capsys)
    assert "curve: not drawn, FileNotFoundError" in told and "a table: " in told
