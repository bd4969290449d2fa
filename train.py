"""Train one GPT with the dropouts that the config chooses.

    python train.py                                            # nano, learned dropout
    python train.py dropout=standard dropout.p=0.3
    python train.py -m dropout=none,standard,learned seed=1,2,3
    python train.py table=published                            # every row of a table
    torchrun --standalone --nproc-per-node=2 train.py micro_batch_size=16

The same command run again goes on where the last one stopped, or finds the run finished.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cli.config import check_config, register_schema
from cli.errors import mistakes_told, run_cli
from cli.help import asks_for_help, print_help
from cli.naming import row_name

if TYPE_CHECKING:  # torch is imported late, so that --help and --cfg answer at once
    from tracking.directory import RunDirectory
    from tracking.record import NoRecord, RunRecord
    from tracking.signals import StopSignals
    from training.state import TrainState

register_schema()
log = logging.getLogger("train")


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    with mistakes_told():
        check_config(cfg)
        cfg.row_name = row_name(cfg)
        OmegaConf.resolve(cfg)
        return run_job(cfg)


def run_job(cfg: DictConfig) -> float | None:
    """Begin the run that the config describes, go on with it, or find it finished.

    Returns the last weights' val loss in nats, for whatever sweeper asks. Of torchrun's ranks the
    first alone opens, writes, tracks and prints.
    """
    from cli.instantiate import instantiate
    from data.prepare import prepare
    from tracking.checkpoint import latest_checkpoint
    from tracking.directory import open_run
    from tracking.facts import run_facts
    from tracking.load import read_base
    from tracking.record import NoRecord, RunRecord
    from tracking.report import announce, print_summary
    from tracking.signals import StopSignals
    from training.device import choose_machine, join_ranks
    from training.state import TrainState, check_design

    tracker = instantiate(cfg.tracker)
    machine = choose_machine(cfg.device, cfg.dtype)
    check_design(cfg)  # before the data: its errors are quick, preparing can be long
    machine = join_ranks(machine, cfg.batch_size, cfg.micro_batch_size)
    ranks, is_first = machine.ranks, machine.ranks.is_first
    if not is_first:
        logging.disable(logging.WARNING)
    base = read_base(cfg)
    identity = None if base is None else base.identity
    data = ranks.first_alone(lambda: prepare(cfg.data, cfg.model.block_size))
    opened = ranks.from_first(
        lambda: open_run(
            cfg,
            data.fingerprint,
            dtype=machine.dtype_name,
            device_kind=machine.device.type,
            base=identity,
        )
    )
    with opened as run, StopSignals(says=is_first) as stop, ranks.leaving_together():
        log.info("run directory: %s", run.path)
        samples: list[str] = []
        if run.status == "finished":
            changed = f" (since then {', '.join(run.changed)} changed)" if run.changed else ""
            log.info("this run is finished%s; fresh=true runs it anew", changed)
        else:
            state = TrainState.build(cfg, machine, data, base)
            if checkpoint := latest_checkpoint(run.checkpoints, run.run_hash):
                state.load(checkpoint)
                log.info("going on from step %d of %d", state.progress.step, cfg.steps)
            record: RunRecord | NoRecord = NoRecord()
            if is_first:
                facts = run_facts(state, identity, HydraConfig.get().overrides.task)
                announce(state, facts)
                record = RunRecord(run, facts, tracker, state.progress.step)
            with record:
                samples = train(state, run, record, stop)
        if not is_first:
            return None
        finished = run.read_record()
        print_summary(run, finished, samples)
    return float(finished["metrics"]["val/loss_nats"])


def train(
    state: TrainState, run: RunDirectory, record: RunRecord | NoRecord, stop: StopSignals
) -> list[str]:
    """Train to the end, or until a signal asks to stop; returns samples of text."""
    from tracking.checkpoint import best_checkpoint, save_checkpoint
    from tracking.pace import Pace
    from tracking.report import StepsBar
    from training.evaluate import evaluate, evaluate_losses, validation_masks
    from training.sample import sample_text
    from training.state import model_weights
    from training.step import check_evaluation, stop_if_skipped, train_step

    cfg, progress, ranks = state.cfg, state.progress, state.machine.ranks
    pace = Pace(state)

    def save(kind: str) -> None:
        if ranks.is_first:
            save_checkpoint(run.checkpoints, kind, state, run.run_hash)

    with StepsBar(progress.step, cfg.steps, shown=ranks.is_first) as bar:
        if progress.step == 0:
            with pace.paused():
                record.log(0, evaluate(state))

        for step in state.remaining_steps():
            metrics = train_step(state)
            pace.step_done()
            if told := pace.forecast():
                log.info("%s", told)

            if due(step, cfg.eval_every) or step == cfg.steps:
                with pace.paused():
                    stop_if_skipped(state)
                    losses = evaluate(state)
                    check_evaluation(step, losses)
                    metrics |= losses
                    bar.show(step, metrics)
                    if progress.is_best(losses["val/loss_nats"]):
                        save("best")
            if due(step, cfg.log_every) or "val/loss_nats" in metrics:
                record.log(step, metrics | pace.metrics())
            bar.advance(step)

            stopping = ranks.any(stop.requested)
            if due(step, cfg.save_every) or stopping or step == cfg.steps:
                with pace.paused():
                    stop_if_skipped(state)
                    save("last")
            if stopping and step < cfg.steps:
                raise stop.interrupted()

        final = evaluate(state, "closing")  # the ranks meet here, after the first has saved
        best = best_checkpoint(run.checkpoints, run.run_hash)
        assert best is not None  # the evaluation at the last step found one, if none before
        losses_of_best = evaluate_losses(state, model_weights(best.tensors))
        samples = sample_text(state)
        record.log_samples(cfg.steps, samples)
        record.log_masks(cfg.steps, validation_masks(state))
        record.finish(cfg.steps, final | pace.metrics(), best.step, losses_of_best)
    return samples


def due(step: int, every: int) -> bool:
    return step % every == 0


if __name__ == "__main__":
    run_cli(print_help if asks_for_help() else main)
