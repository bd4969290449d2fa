"""Weights & Biases as a tracker."""

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import write_atomically
from common.wandb_places import RECORD, has_wandb_key
from tracking.trackers import (
    FINISH_TIMEOUT_S,
    START_TIMEOUT_S,
    Event,
    Histogram,
    TrackedRun,
    Value,
    shown,
)

logger = logging.getLogger(__name__)

PROMPT = (
    "(end of text)"  # a run's samples begin from nothing else: a line break where there is none
)


class WandbTracker:
    """Weights & Biases, with a table as group and a row as job type.

    `mode` is `online`, `offline` or `auto`: online where W&B's own places (WANDB_API_KEY, the
    netrc file of `wandb login`) hold a key, else offline. `modules` shows what is of single modules
    too; `model` adds the best checkpoint of a finished run as an artifact. WANDB_NAME,
    WANDB_TAGS, WANDB_RUN_GROUP and WANDB_JOB_TYPE win over the run's own. Raises UserError for
    another mode, and for `online` without a key, where W&B would stop and ask on the terminal.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None = None,
        mode: str = "auto",
        tags: Sequence[str] = (),
        modules: bool = False,
        model: bool = False,
    ) -> None:
        if mode not in ("auto", "online", "offline"):
            raise UserError(f"tracker.mode={mode} must be one of auto, online, offline")
        if mode == "online" and not has_wandb_key():
            raise UserError(
                "tracker.mode=online needs a W&B key, and there is none: run `wandb login`, set "
                "WANDB_API_KEY, or use tracker.mode=auto, which then runs offline"
            )
        self.project, self.entity, self.tags = project, entity, list(tags)
        self.mode, self.modules, self.model = mode, modules, model

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        # W&B's reports on itself go out to a third party, and without a connection delay the exit.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # half a second, and on the tracker's own thread

        wandb.setup(wandb.Settings(silent=True))
        with wandb.init(
            project=self.project, entity=self.entity, mode=self._wandb_mode(), id=run.id,
            resume="allow", dir=str(run.directory), config=dict(run.config),
            settings=_wandb_settings(),
            name=_unless_set("WANDB_NAME", run.name),
            group=_unless_set("WANDB_RUN_GROUP", run.group),
            job_type=_unless_set("WANDB_JOB_TYPE", run.job_type),
            tags=[*_tags(run), *self.tags],
        ) as session:  # fmt: skip
            folder, failure = Path(session.dir).parent, None
            try:
                self._send(session, run, events)
            except Exception as error:  # else W&B prints its traceback amid the run's own words
                failure = error
        if failure is not None:
            raise failure
        if session.offline:
            logger.info(
                "W&B, offline: look with `wandb leet %s`, send with `wandb sync %s`", folder, folder
            )

    def _wandb_mode(self) -> Any:
        """The mode as W&B takes it, `auto` decided.

        None: as W&B's own settings have it (WANDB_MODE, `wandb offline`), and online without any.
        """
        if self.mode != "auto":
            return self.mode
        return None if has_wandb_key() else "offline"

    def _send(self, session: Any, run: TrackedRun, events: Iterable[Event]) -> None:
        if session.offline:
            _remove_superseded(run.directory, Path(session.dir).parent)
        else:
            logger.info("W&B: %s", session.url)
        _keep_record(session, run.directory)  # of a run that is killed, this is what stays
        defined: set[str] = set()
        summary: dict[str, Any] = {}
        for step, values, closing in events:
            sent = {n: _to_wandb(value, step) for n, value in shown(values, self.modules).items()}
            if closing:
                summary |= sent
            # After a resume online, W&B's server already holds the steps before this one.
            elif step >= session.starting_step:
                for name in filter(_has_minimum, sent.keys() - defined):
                    session.define_metric(name, summary="min,last")
                defined |= sent.keys()
                session.log(sent, step)
        pages = _mask_pages(run.directory)
        if defined or pages:
            session.log(pages, commit=True)  # the last step, which else would overwrite the summary
        session.summary.update(summary)
        _keep_record(session, run.directory)
        if self.model and run.exit_code == os.EX_OK:
            _log_model(session, run)
        if run.exit_code == os.EX_TEMPFAIL:
            session.mark_preempting()
        session.finish(run.exit_code)


def _unless_set(variable: str, value: str) -> str | None:
    """None, where W&B takes its own variable."""
    return None if os.environ.get(variable) else value


def _tags(run: TrackedRun) -> list[str]:
    tags = os.environ.get("WANDB_TAGS")
    return tags.split(",") if tags else run.tags


def _has_minimum(name: str) -> bool:
    """Not every metric: the minimum of a standard error, a count or a picture would be nonsense."""
    group = name.split("/")[0]
    return group in ("train", "val", "eval") and not name.endswith(("_stderr", "/windows"))


def _wandb_settings() -> Any:
    import wandb

    return wandb.Settings(
        console="off",  # the terminal is the run's own
        silent=True,
        disable_git=True,  # a remote's address may hold a password; the facts have the commit
        save_code=False,
        init_timeout=START_TIMEOUT_S,
        login_timeout=START_TIMEOUT_S,
        finish_timeout=0.75 * FINISH_TIMEOUT_S,  # before the guard's: what is left can be synced
        finish_timeout_raises=True,
    )


def _keep_record(session: Any, directory: Path) -> None:
    """The run's record as a file of the run, where `experiments.table --source` finds it."""
    kept = Path(session.dir) / RECORD
    if (directory / RECORD).exists() and not session.disabled:
        write_atomically(kept, (directory / RECORD).read_text(encoding="utf-8"))
        session.save(kept, base_path=session.dir, policy="now", glob=False)


def _mask_pages(directory: Path) -> dict[str, Any]:
    """What `inspect_masks.py` drew of the run, if it did."""
    import wandb

    page = directory / "masks" / "index.html"
    if not page.exists():
        return {}
    return {"inspection/masks": wandb.Html(page.read_text(encoding="utf-8"))}


def _log_model(session: Any, run: TrackedRun) -> None:
    """The best checkpoint with the run's config and record, as they lie in its directory.

    `--run` takes such a folder; the record has the dtype that the run computed in.
    """
    import wandb

    *_, best = sorted(run.directory.glob("checkpoints/best-????????"))
    model = wandb.Artifact(f"model-{run.id}", type="model", metadata={"row": run.job_type})
    for kept in ("config.yaml", RECORD):
        model.add_file(str(run.directory / kept), policy="immutable", skip_cache=True)
    name = best.relative_to(run.directory).as_posix()
    model.add_dir(str(best), name=name, policy="immutable", skip_cache=True)
    session.log_artifact(model, aliases=["best"])


def _to_wandb(value: Value, step: int) -> Any:
    import wandb

    if isinstance(value, Histogram):
        edges = np.linspace(0.0, 1.0, len(value.counts) + 1)
        return wandb.Histogram(np_histogram=(np.asarray(value.counts), edges))
    if isinstance(value, float | int):
        return value
    samples: list[Iterable[Any]] = [[step, PROMPT, text] for text in value]
    return wandb.Table(columns=["step", "prompt", "sample"], data=samples)


def _remove_superseded(directory: Path, current: Path) -> None:
    """Delete earlier offline copies of this run: the current one is given every event again.

    W&B writes a new file at each start, and one that was killed lacks its last 15 seconds. Only one
    whole file leaves neither gaps nor doubled steps, whoever syncs it.
    """
    for earlier in directory.glob("wandb/offline-run-*"):
        if earlier.name != current.name:
            shutil.rmtree(earlier, ignore_errors=True)
