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
        from tracking.job import run_job  # late too, and only for a config that holds

        return run_job(cfg, train)


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
                    if step < cfg.steps:  # the closing ones follow
                        record.log_masks(step, validation_masks(state))
                        record.log_samples(step, sample_text(state, n_samples=1, n_tokens=40))
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
