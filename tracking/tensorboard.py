"""TensorBoard as a tracker: event files in the run's own directory."""

import logging
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import numpy as np

from common.errors import UserError
from tracking.trackers import Event, Histogram, TrackedRun, Value, shown

logger = logging.getLogger(__name__)


class TensorBoardTracker:
    """Scalars, histograms and texts under `<run>/tensorboard`.

    `modules` shows the metrics of single modules too. Raises UserError where TensorBoard is not
    installed.
    """

    def __init__(self, *, modules: bool = False) -> None:
        if find_spec("tensorboard") is None:
            raise UserError(
                "tracker=tensorboard needs the package tensorboard, which is not installed: "
                "pip install -c constraints.txt -e '.[tensorboard]'"
            )
        self.modules = modules

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow, and on the tracker's own thread

        folder = run.directory / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)  # every event comes again after a resume
        with SummaryWriter(folder, flush_secs=10) as writer:
            curves: set[str] = set()
            for step, values, closing in events:
                named = shown(values, self.modules)
                for name in named.keys() - curves if closing else named:
                    _add(writer, name, named[name], step)
                curves |= named.keys()
        logger.info("TensorBoard: look with `tensorboard --logdir %s`", folder)


def _add(writer: Any, name: str, value: Value, step: int) -> None:
    if isinstance(value, Histogram):
        edges = np.linspace(0.0, 1.0, len(value.counts) + 1)
        middles, counts = (edges[:-1] + edges[1:]) / 2, np.asarray(value.counts)
        writer.add_histogram_raw(
            name,
            min=0.0,
            max=1.0,
            num=counts.sum(),
            sum=counts @ middles,
            sum_squares=counts @ middles**2,
            bucket_limits=edges[1:],
            bucket_counts=counts,
            global_step=step,
        )
    elif isinstance(value, float | int):
        writer.add_scalar(name, value, step)
    else:
        writer.add_text(name, "\n\n-----\n\n".join(value), step)
