"""A run in small, for the launcher: it starts, does what `kind` says, and ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cli.errors import run_cli
from common.errors import InUseError

INTERRUPTED = 75


@hydra.main(version_base="1.3", config_path="toy", config_name="toy")
def main(cfg: DictConfig) -> None:
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    signal.signal(signal.SIGINT, lambda number, _: stops.append(number))
    threads = "/".join(os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    print(f"pid={os.getpid()} group={os.getpgrp()} table={cfg.table_name} threads={threads}")
    print(f"gpu=[{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}]")
    began = time.time()
    if cfg.kind == "raises":
        raise RuntimeError("the reason")
    if cfg.kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.kind == "interrupted":
        sys.exit(INTERRUPTED)
    if cfg.kind == "leaves":
        helper = subprocess.Popen(["sleep", "600"])
        print(f"helper={helper.pid}")
    while cfg.kind in ("waits", "stubborn"):
        time.sleep(0.02)
        if stops and cfg.kind == "waits":
            print(f"saved on {stops}")
            sys.exit(INTERRUPTED)
    if cfg.kind == "meets":  # only two at the same time get out of here
        Path(cfg.place, str(cfg.seed)).touch()
        while len(list(Path(cfg.place).iterdir())) < 2:
            time.sleep(0.02)
    if cfg.kind == "in_use":
        raise InUseError("the run is in use")
    if cfg.kind == "runs":
        directory = Path(cfg.runs, "my table", "toy", f"seed{cfg.seed}")
        directory.mkdir(parents=True)
        losses = {"val/loss_nats": 4 + cfg.seed / 10}
        best = {"val/loss_nats": 4, "step": 30}
        summary = {"row": "toy", "seed": cfg.seed, "metrics": losses, "best": best}
        (directory / "summary.json").write_text(json.dumps(summary))
        print(f"run directory: {directory}")
    print(f"ran from {began} to {time.time()}")


if __name__ == "__main__":
    run_cli(main)
