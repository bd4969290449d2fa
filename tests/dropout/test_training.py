"""Every preset learns something in fifty steps of the smallest scale, by the command a person types."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "configs" / "dropout").glob("*.yaml"))
FIFTY_STEPS = ["scale=nano", "steps=50", "log_every=1", "eval_every=50", "save_every=50"]
FIFTY_STEPS += ["evaluate.windows=64", "evaluate.final_windows=64", "schedule.warmup_steps=10"]
FIFTY_STEPS += ["tracker=none", "batch_size=16", "micro_batch_size=16"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("preset", PRESETS)
def test_loss_falls(preset: str, tmp_path: Path) -> None:
    activation = "selu" if "alpha" in preset else "gelu"
    choice = [f"dropout={preset}", f"model.activation={activation}", f"runs_dir={tmp_path}"]
    command = [sys.executable, "train.py", *FIFTY_STEPS, *choice]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (metrics,) = tmp_path.rglob("metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [line["train/batch_loss_nats"] for line in lines if "train/batch_loss_nats" in line]
    assert len(losses) == 50
    first, last = mean(losses[:5]), mean(losses[-5:])
    print(f"{preset}: {first:.3f} -> {last:.3f} nats")
    assert last < first - 0.5
