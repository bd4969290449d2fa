"""Train one GPT with the dropouts that the config chooses.

    python train.py                                            # nano, learned dropout
    python train.py dropout=standard dropout.p=0.3
    python train.py -m dropout=none,standard,learned seed=1,2,3
    python train.py table=published                            # every row of a table

The same command run again goes on where the last one stopped, or finds the run finished.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from cli.config import check_config, register_schema
from cli.errors import mistakes_told, run_cli
from cli.help import asks_for_help, print_help
from cli.naming import row_name
from common.errors import NON_FINITE

if TYPE_CHECKING:  # torch is imported late, so that --help and --cfg answer at once
    from tracking.directory import RunDirectory
    from tracking.record import RunRecord
    from tracking.signals import StopSignals
    from training.state import TrainState

register_schema()
log = logging.getLogger("train")


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> None:
    with mistakes_told():
        check_config(cfg)
        cfg.row_name = row_name(cfg)
        OmegaConf.resolve(cfg)
        run_job(cfg)


def run_job(cfg: DictConfig) -> None:
    """Begin the run that the config describes, go on with it, or find it finished."""
    from cli.instantiate import instantiate
    from tracking import provenance
    from tracking.checkpoint import latest_checkpoint
    from tracking.directory import open_run
    from tracking.record import RunRecord, publish
    from tracking.report import print_summary, run_facts
    from tracking.signals import StopSignals
    from training.state import TrainState
    from training.step import NonFiniteError

    tracker = instantiate(cfg.tracker)
    state = TrainState.build(cfg)
    opened = open_run(
        cfg,
        state.data.fingerprint,
        dtype=state.machine.dtype_name,
        device_kind=state.machine.device.type,
        code_hash=provenance.code_hash(),
    )
    with opened as run, StopSignals() as stop:
        log.info("run directory: %s", run.path)
        if run.status == "finished":
            log.info("this run is finished; fresh=true runs it anew")
            publish(run, run.read_record())
            print_summary(run, run.read_record(), [])
            return
        if checkpoint := latest_checkpoint(run.checkpoints):
            state.load(checkpoint)
            log.info("going on from step %d of %d", state.progress.step, cfg.steps)
        try:
            with RunRecord(run, run_facts(state), tracker, state.progress.step) as record:
                samples = train(state, run, record, stop)
        except NonFiniteError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(NON_FINITE)
        print_summary(run, run.read_record(), samples)


def train(state: TrainState, run: RunDirectory, record: RunRecord, stop: StopSignals) -> list[str]:
    """Train to the end, or until a signal asks to stop; returns samples of text."""
    from tracking.pace import Pace
    from tracking.report import StepsBar, sample_text, validation_masks
    from training.evaluate import evaluate
    from training.step import stop_if_skipped, train_step

    cfg, progress = state.cfg, state.progress
    pace = Pace(state)
    with StepsBar(progress.step, cfg.steps) as bar:
        if progress.step == 0:
            record.log(0, evaluate(state))

        for step in state.remaining_steps():
            metrics = train_step(state)
            pace.step_done()

            if due(step, cfg.eval_every) or step == cfg.steps:
                with pace.paused():
                    stop_if_skipped(state)
                    metrics |= evaluate(state)
                    bar.show(step, metrics)
                    if progress.is_best(float(metrics["val/loss_nats"])):
                        state.save(run.checkpoints, "best")
            if due(step, cfg.log_every) or "val/loss_nats" in metrics:
                record.log(step, metrics | pace.metrics())
            bar.advance(step)

            if due(step, cfg.save_every) or stop.requested or step == cfg.steps:
                with pace.paused():
                    stop_if_skipped(state)
                    state.save(run.checkpoints, "last")
            if stop.requested and step < cfg.steps:
                raise stop.interrupted()

        final = evaluate(state, cfg.evaluate.final_windows)
        samples = sample_text(state)
        record.log_samples(cfg.steps, samples)
        record.log_masks(cfg.steps, validation_masks(state))
        record.finish(cfg.steps, final | pace.metrics())
    return samples


def due(step: int, every: int) -> bool:
    return step % every == 0


if __name__ == "__main__":
    run_cli(print_help if asks_for_help() else main)
