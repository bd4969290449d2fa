"""A config in, a finished run out: open its directory, build or load its state, train, record."""

import logging
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cli.instantiate import instantiate
from data.prepare import prepare
from tracking.checkpoint import latest_checkpoint
from tracking.directory import RunDirectory, open_run
from tracking.door import check_summary
from tracking.facts import run_facts
from tracking.load import read_base
from tracking.record import NoRecord, RunRecord
from tracking.report import announce, print_summary
from tracking.signals import StopSignals
from training.device import choose_machine, join_ranks
from training.state import TrainState, check_design

# Trains to the end, or until asked to stop; returns samples of text.
Train = Callable[[TrainState, RunDirectory, RunRecord | NoRecord, StopSignals], list[str]]

log = logging.getLogger("train")


def run_job(cfg: DictConfig, train: Train) -> float | None:
    """Begin the run that the config describes, go on with it, or find it finished.

    Returns the last weights' val loss in nats, for whatever sweeper asks. Of torchrun's ranks the
    first alone opens, writes, tracks and prints.
    """
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
        check_summary(run.path, finished)
        print_summary(run, finished, samples)
    return float(finished["metrics"]["val/loss_nats"])
