"""Adapters on a trained run: equal start, frozen base, exact resume, clear refusals."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cli.config import register_schema
from model.adapters import base_tensors
from model.flops import training_flops_per_token
from tracking.checkpoint import latest_checkpoint, save_checkpoint
from tracking.load import load_run, read_base
from training.state import TrainState
from training.step import train_step

TINY = [
    "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=8",
    "model.vocab_size=257", "data.vocab_size=257", "batch_size=8", "micro_batch_size=4",
    "schedule.warmup_steps=1", "optimizer.lr=0.02", "device=cpu", "dtype=float32", "tracker=none",
    "dropout=none",
]  # fmt: skip
ADAPTERS = {
    "lora_drop": ["adapter=lora_drop", "adapter.layer.dropout_rate=0.3"],
    "lora_drop of its own stream": ["adapter=lora_drop", "adapter.layer.seed=3"],
    "oft": ["adapter=oft", "adapter.layer.block_size=4", "adapter.layer.module_dropout.p=0.3"],
    "boft": ["adapter=boft", "adapter.layer.block_size=4", "adapter.layer.module_dropout.p=0.3"],
}
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())


class RepeatedTokens:
    """A text that can be learned: the same 40 tokens over and over."""

    splits = ("train", "val")
    end_of_text = None

    def tokens(self, split: str) -> np.ndarray:
        return np.tile(np.arange(40, dtype=np.uint16) * 5, 20)


def config(*overrides: str) -> DictConfig:
    register_schema()
    configs = Path(__file__).parents[2] / "configs"
    with initialize_config_dir(str(configs), version_base="1.3"):
        cfg = compose("train", [*TINY, *overrides])
    OmegaConf.resolve(cfg)
    return cfg


def build(*overrides: str) -> TrainState:
    cfg = config(*overrides)
    return TrainState.build(cfg, data=RepeatedTokens(), base=read_base(cfg))


def save_run(state: TrainState, directory: Path, kind: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(state.cfg))
    save_checkpoint(directory / "checkpoints", kind, state)
    return directory


@torch.no_grad()
def loss_of_evaluation(state: TrainState) -> float:
    tokens, targets = state.batches["val"].gather(torch.arange(40))
    logits = state.model.logits(state.model.eval()(tokens).hidden)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The directory of a run of a few steps."""
    state = build()
    for _ in range(16):
        train_step(state)
    return save_run(state, tmp_path_factory.mktemp("base"), "best")


@every_adapter
def test_a_fine_tuning_starts_as_its_base_and_trains_the_adapter_alone(base, adapter):
    tokens = torch.arange(8)[None]
    expected = load_run(base, device="cpu").model(tokens).hidden
    state = build(*adapter, f"init_from={base}")
    assert torch.equal(state.model.eval()(tokens).hidden, expected)

    before = {name: tensor.clone() for name, tensor in base_tensors(state.model).items()}
    loss = loss_of_evaluation(state)
    for _ in range(15):
        train_step(state)
    assert loss_of_evaluation(state) < loss - 0.02
    after = base_tensors(state.model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not torch.equal(state.model.eval()(tokens).hidden, expected)


@every_adapter
def test_a_record_counts_the_adapters_products(base, adapter):
    whole = training_flops_per_token(build(*adapter, f"init_from={base}").model)
    without = load_run(base, device="cpu").model
    forward = training_flops_per_token(copy.deepcopy(without).requires_grad_(False))
    assert forward < whole < 2 * training_flops_per_token(without)


@every_adapter
def test_four_steps_are_two_a_resume_and_two(base, adapter, tmp_path):
    overrides = [*adapter, f"init_from={base}"]
    whole, half = build(*overrides), build(*overrides)
    for _ in range(4):
        train_step(whole)
    for _ in range(2):
        train_step(half)
    save_run(half, tmp_path, "last")
    resumed = build(*overrides)
    resumed.load(latest_checkpoint(tmp_path / "checkpoints"))
    for _ in range(2):
        train_step(resumed)
    expected, found = whole.tensors(), resumed.tensors()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_fine_tuned_run_loads_without_its_base(base, tmp_path):
    moved = base.rename(tmp_path / "base")
    state = build(*ADAPTERS["oft"], f"init_from={moved}")
    train_step(state)
    directory = save_run(state, tmp_path / "tuned", "best")
    moved.rename(base)
    tokens = torch.arange(8)[None]
    model = load_run(directory, device="cpu").model
    assert torch.equal(model(tokens).hidden, state.model.eval()(tokens).hidden)


def test_every_parameter_trains_where_there_is_no_adapter(base):
    state = build(f"init_from={base}")
    assert all(p.requires_grad for p in state.model.parameters())
    before = state.model.blocks[0].mlp.expand.weight.clone()
    train_step(state)
    assert not torch.equal(state.model.blocks[0].mlp.expand.weight, before)


def test_an_adapter_without_a_trained_model_is_refused():
    with pytest.raises(ValueError, match=r"adapter=oft needs a trained model.*init_from=RUN_DIR"):
        build("adapter=oft")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.n_embd=32"], "is of another model .* it was trained with dropout=none"),
        (
            ["dropout=learned"],
            r"is of another model \(2 tensors differ, first blocks.0.mlp.mlp_output",
        ),
    ],
)
def test_a_base_of_another_shape_is_refused(base, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(*overrides, f"init_from={base}")


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run's directory"):
        build(f"init_from={tmp_path}")


def test_a_base_with_adapters_of_its_own_is_refused(base, tmp_path):
    tuned = save_run(build(*ADAPTERS["oft"], f"init_from={base}"), tmp_path, "best")
    with pytest.raises(ValueError, match=f"trained with adapter=oft.*init_from={base}"):
        build("adapter=boft", "adapter.layer.block_size=4", f"init_from={tuned}")


def test_a_base_without_a_best_checkpoint_is_refused(base, tmp_path):
    (tmp_path / "config.yaml").write_text((base / "config.yaml").read_text())
    with pytest.raises(ValueError, match="has no best checkpoint yet"):
        build(f"init_from={tmp_path}")
