"""What a GPU must do, in one command on a machine with one: `pytest -m gpu`.

Each is about a run as train.py makes it, or about its parts at tiny shapes. `GPU_SUITE_ON=cpu` takes
the same paths on a CPU, to try the suite itself.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.contender import Contender, Spec
from common.errors import NonFiniteError
from tests.golden import composed
from tests.soak.runs import ROOT, ending_of
from tracking.checkpoint import read_checkpoint, save_checkpoint
from training.evaluate import evaluate
from training.state import TrainState
from training.step import stop_if_skipped, train_step

DEVICE = os.environ.get("GPU_SUITE_ON", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="torch sees no GPU here"
    ),
]
# Sizes that fill tensor cores' tiles, and yet take seconds.
SMALL = (
    "batch_size=16", "micro_batch_size=8", "model.n_embd=64", "model.n_layer=2", "model.n_head=2",
    "model.block_size=64", "data.max_bytes=400000", "data.max_train_tokens=20000", "tracker=none",
    "schedule.warmup_steps=10", "evaluate.windows=16", "evaluate.final_windows=24",
    "evaluate.batch_size=16",
)  # fmt: skip
DROPOUTS = ("none", "standard", "learned")


def build(*overrides: str, device: str = DEVICE) -> TrainState:
    return TrainState.build(composed(*SMALL, f"device={device}", *overrides))


def losses(state: TrainState, steps: int) -> torch.Tensor:
    return torch.tensor([float(train_step(state)["train/batch_loss_nats"]) for _ in range(steps)])


def train(*overrides: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "train.py", *SMALL, f"device={DEVICE}", *map(str, overrides)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_without_noise_the_loss_goes_where_the_cpus_float32_goes(compiled):
    options = ("dropout=none", f"compile={compiled}")
    here, there = (
        build("dtype=float32", *options),
        build("dtype=float32", "dropout=none", device="cpu"),
    )
    assert torch.allclose(losses(here, 60), losses(there, 60), atol=2e-3)
    for name, loss in evaluate(there).items():
        if name.endswith("loss_nats"):
            assert evaluate(here)[name] == pytest.approx(loss, abs=2e-3)


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_with_noise_of_its_own_it_learns_as_well(dropout):
    """In bfloat16, compiled: other draws than the CPU's, so the same loss within some hundredths."""
    here = build(f"dropout={dropout}", "dtype=bfloat16", "compile=true")
    there = build(f"dropout={dropout}", "dtype=float32", device="cpu")
    for state in (here, there):
        losses(state, 100)
    stop_if_skipped(here)
    ours, cpu = evaluate(here), evaluate(there)
    assert ours["val/loss_nats"] == pytest.approx(cpu["val/loss_nats"], abs=0.1)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dropout", DROPOUTS)
def test_a_resumed_run_has_the_same_bits(tmp_path, dropout, compiled):
    options = (f"dropout={dropout}", f"compile={compiled}", "ema_decay=0.9")
    whole = build(*options)
    losses(whole, 5)
    save_checkpoint(tmp_path, "last", whole)
    expected = losses(whole, 5)
    resumed = build(*options)
    resumed.load(read_checkpoint(tmp_path / "last-00000005"))
    assert torch.equal(losses(resumed, 5), expected)
    for name, tensor in whole.tensors().items():
        assert torch.equal(resumed.tensors()[name], tensor), name


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_a_run_with_evaluations_is_compiled_once(dropout):
    """All graphs are there after a first step and evaluation; a later one would be a recompilation."""
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    state = build(f"dropout={dropout}", "compile=true")
    for extent in ("curve", "closing"):
        train_step(state)
        evaluate(state, extent)
    before = graphs["unique_graphs"]
    for _ in range(3):
        losses(state, 3)
        evaluate(state)
    evaluate(state, "closing")
    assert before > 0
    assert graphs["unique_graphs"] == before


def test_a_run_by_the_command_line_and_its_resumption(tmp_path):
    whole, cut = (tmp_path / "whole", tmp_path / "cut")
    options = ("steps=12", "eval_every=4", "save_every=4", "log_every=1", "compile=true")
    done = train(*options, f"runs_dir={whole}")
    assert done.returncode == 0, done.stderr
    assert train(*options, f"runs_dir={cut}").returncode == 0
    (one,), (other,) = (folder.glob("*/*/*") for folder in (whole, cut))
    assert ending_of(one) == ending_of(other)
    record = json.loads((one / "record.json").read_text())
    assert record["device"]["kind"] == DEVICE
    assert record["metrics"]["memory_bytes"] > 0


def test_several_rows_of_a_sweep_on_one_gpu(tmp_path):
    sweep = (
        "hydra.mode=MULTIRUN",
        f"hydra.sweep.dir={tmp_path / 'logs'}",
        "hydra.launcher.workers=3",
    )
    done = train(
        *sweep, "steps=6", "dropout=none,standard,learned", f"runs_dir={tmp_path / 'runs'}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == 3


@pytest.mark.skipif(DEVICE == "cpu", reason="a CPU's memory is not this process's to fill")
def test_out_of_memory_says_what_needs_less(tmp_path):
    size = ("batch_size=4194304", "micro_batch_size=4194304", "model.block_size=512")
    done = train(*size, "steps=1", f"runs_dir={tmp_path}")
    assert done.returncode == 1
    assert "error: out of memory: a smaller micro_batch_size" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_a_step_takes_no_more_memory_than_a_plain_one(dropout):
    dtype = "float32" if DEVICE == "cpu" else "bfloat16"
    overrides = ("scale=nano", "model.vocab_size=8192", f"dropout={dropout}")
    peaks = {}
    for kind in ("ours", "plain"):
        with Contender(Spec(kind, overrides, dtype, False, DEVICE)) as contender:
            contender.steps(3)
            peaks[kind] = contender.working_bytes()
    assert peaks["ours"] <= 1.05 * peaks["plain"]


def take_steps(state: TrainState, steps: int) -> None:
    for _ in range(steps):
        train_step(state)
        stop_if_skipped(state)


def test_a_step_that_is_not_finite_is_skipped_on_the_device_and_told_of():
    state = build(
        "dropout=none", "optimizer.lr=1e30", "schedule.warmup_steps=0", "schedule.min_lr=0"
    )
    with pytest.raises(NonFiniteError, match=r"(?i)no weight was updated"):
        take_steps(state, 5)
    assert all(not torch.isnan(p).any() for p in state.model.parameters())
