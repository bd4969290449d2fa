"""TensorBoard as a tracker, read back by TensorBoard itself."""

import pytest

from common.errors import UserError
from tracking.tensorboard import TensorBoardTracker
from tracking.trackers import Event, Histogram, TrackedRun


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("tracking.tensorboard.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs the package tensorboard.*pip install .*tensorboard"
    ):
        TensorBoardTracker()


def test_it_shows_scalars_histograms_and_texts_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = TrackedRun("id", tmp_path, {}, "table", "row", "name")
    few = [Event(1, {"lr": 0.5, "modules/block0/mlp_output/eval/ones": 0.5})]
    more = [
        Event(2, {"lr": 0.25}),
        Event(2, {"masks/block0/mlp_output": Histogram([1, 0, 3, 0])}),
        Event(2, {"samples": ["Once", "upon"]}),
        Event(2, {"final/val/loss_nats": 4.5, "lr": 0.125}, closing=True),
    ]
    TensorBoardTracker().track(run, few)  # a session that was killed
    TensorBoardTracker().track(run, few + more)
    read = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    read.Reload()
    tags = read.Tags()
    assert set(tags["scalars"]) == {"optimizer/lr", "final/val/loss_nats"}
    assert [(e.step, e.value) for e in read.Scalars("optimizer/lr")] == [(1, 0.5), (2, 0.25)]
    assert tags["histograms"] == ["masks/all"]
    (histogram,) = read.Histograms("masks/all")
    value = histogram.histogram_value
    assert (value.num, value.sum, value.bucket) == (4, 0.125 + 3 * 0.625, [1, 0, 3, 0])
    (text,) = read.Tensors("samples/text_summary")
    assert text.tensor_proto.string_val == [b"Once\n\n-----\n\nupon"]
