"""The installed package: in models of others, and among packages of others."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
import torch
from torch import nn

from learned_dropout import (
    DropIn,
    LearnedDropout,
    MaskPenalty,
    StandardDropout,
    StochasticRounding,
    guard,
    penalty,
)
from learned_dropout.rooms import ROOMS

ROOT = Path(__file__).parents[2]
LEARNED = partial(
    LearnedDropout, rounding=StochasticRounding(), penalty=MaskPenalty(squared=1.0), shift_init=1.5
)
ELSEWHERE = """
from functools import partial
import common, ops, torch
from learned_dropout import DropIn, LearnedDropout, StandardDropout
assert common.ours == ops.ours == 1, "the person's own modules"
assert LearnedDropout.__module__ == "learned_dropout.dropout.learned"
assert sys.modules["learned_dropout"].__file__.startswith(sys.path[-1])
DropIn(partial(StandardDropout, p=0.1), width=4)(torch.ones(1, 2, 4))
for name in ("hydra", "omegaconf", "wandb", "datasets", "pydantic", "safetensors", "pandas"):
    assert name not in sys.modules, f"{name} is imported"
for name in ("dropout", "data", "model", "training"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} can be imported")
"""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_its_parts_are_its_own_and_none_of_a_plain_name():
    parts = [m for name, m in sys.modules.items() if name.startswith("learned_dropout.")]
    assert len(parts) > 20
    made = [one.__module__ for m in parts for one in vars(m).values() if isinstance(one, type)]
    assert not {name.partition(".")[0] for name in made} & {*ROOMS}


@pytest.mark.slow
def test_installed_it_takes_one_name_needs_torch_alone_and_lives_beside_others(tmp_path):
    pytest.importorskip("setuptools")
    source, site, here = (tmp_path / name for name in ("source", "site", "here"))
    for name in ("learned_dropout", *ROOMS):  # a copy, for building leaves its own files there
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    pip = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", tmp_path, source]
    subprocess.run(pip, cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(site)

    kernels = {path.name for path in (ROOT / "ops" / "kernels").iterdir() if path.is_file()}
    packed = {path.name for path in (site / "learned_dropout" / "ops" / "kernels").iterdir()}
    assert packed == kernels and {Path(name).suffix for name in kernels} >= {".cpp", ".h"}
    assert len([path for path in site.iterdir() if path.suffix != ".dist-info"]) == 1

    here.mkdir()
    for name in ("common", "ops"):
        (here / f"{name}.py").write_text("ours = 1\n")
    code = f"import sys; sys.path.append({str(site)!r})" + ELSEWHERE
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True)


@pytest.mark.parametrize("make", [LEARNED, partial(StandardDropout, p=0.5)])
def test_in_an_encoder_layer_it_acts_in_training_and_as_it_should_in_evaluation(make):
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    hidden = torch.randn(2, 5, 16)
    bare = layer.eval()(hidden)
    layer.dropout2 = DropIn(make, width=16, n_head=2)
    assert not torch.allclose(layer.train()(hidden), bare, atol=1e-3)
    evaluated = layer.eval()(hidden)
    assert torch.allclose(evaluated, bare, atol=1e-5) == (make is not LEARNED)
    with torch.no_grad():  # where torch would take a way around its dropouts
        torch.testing.assert_close(layer(hidden), evaluated)


def test_its_penalty_trains_the_mask():
    layer = DropIn(LEARNED, width=16, n_head=2)
    model = nn.Sequential(nn.Linear(16, 16), layer)
    with pytest.raises(ValueError, match="call the model first"):
        penalty(model)
    model(torch.randn(2, 5, 16))
    penalty(model).backward()
    assert layer.dropout.shift.grad.abs().sum() > 0


@pytest.fixture
def gpt2():
    """A GPT-2 of Hugging Face's with a learned mask at each MLP's output."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    for block in model.transformer.h:
        block.mlp.dropout = DropIn(LEARNED, width=16, n_head=2)
    return guard(model)


def test_in_gpt2_it_trains_by_loss_and_penalty(gpt2):
    tokens = torch.randint(50, (2, 8))
    loss = gpt2(tokens, labels=tokens, use_cache=False).loss
    (loss + 0.1 * penalty(gpt2)).backward()
    assert all(parameter.grad is not None for parameter in gpt2.parameters())


def test_gpt2_is_kept_from_what_would_change_its_masks(gpt2):
    gpt2.eval()
    tokens = torch.randint(1, 50, (1, 4))
    mask = torch.ones_like(tokens)
    out = gpt2.generate(tokens, attention_mask=mask, max_new_tokens=4, use_cache=False)
    assert out.shape == (1, 8)
    with pytest.raises(ValueError, match="use_cache=False"):
        gpt2.generate(tokens, attention_mask=mask, max_new_tokens=4)
    with pytest.raises(ValueError, match="padding_side='right'"):
        gpt2(tokens, attention_mask=torch.tensor([[0, 1, 1, 1]]), use_cache=False)


def test_gpt2_is_kept_from_it_where_arguments_come_without_names(gpt2):
    tokens = torch.randint(1, 50, (1, 4))
    cache = SimpleNamespace(get_seq_length=lambda: 3)
    with pytest.raises(ValueError, match="use_cache=False"):
        gpt2(tokens, cache)
    with pytest.raises(ValueError, match="padding_side='right'"):
        gpt2(tokens, None, torch.tensor([[0, 1, 1, 1]]))
