"""The plain implementation is the same model: one set of weights, one loss."""

from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.contender import Spec, Stepper, compose_config
from benchmarks.plain import PlainConfig, PlainGPT, PlainTrainer, load_weights
from data.batches import Batches
from dropout.standard import StandardDropout
from ops import native
from ops.head import head_loss
from training.state import build_model

SMALL = (
    "scale=nano",
    "model.n_layer=2",
    "model.n_embd=24",
    "model.n_head=3",
    "model.block_size=10",
)
STEP = ("model.vocab_size=130", "batch_size=6", "micro_batch_size=3")


def both(dropout: str, vocab_multiple: int = 1):
    cfg = compose_config(Spec("ours", (*SMALL, *STEP, f"dropout={dropout}"), "float32"))
    ours = build_model(cfg)
    names = ("block_size", "n_layer", "n_head", "n_embd")
    vocab = cfg.model.vocab_size + -cfg.model.vocab_size % vocab_multiple
    shape = {name: cfg.model[name] for name in names} | {"vocab_size": vocab}
    plain = PlainGPT(PlainConfig(**shape, learned_dropout=dropout == "learned"))
    load_weights(plain, ours.state_dict())
    torch.manual_seed(0)
    return ours.eval(), plain.eval(), torch.randint(cfg.model.vocab_size, (2, 4, 10))


@pytest.mark.parametrize("dropout", ["none", "learned"])
def test_same_weights_give_the_same_loss_and_penalty(dropout):
    ours, plain, (tokens, targets) = both(dropout)
    if dropout == "learned":  # away from the initial M = 1, where nothing could go wrong
        for module in (*ours.modules(), *plain.modules()):
            if hasattr(module, "shift"):
                torch.nn.init.constant_(module.shift, 1.5)
    out = ours(tokens)
    loss = head_loss(out.hidden.flatten(0, 1), ours.head_weight, targets.flatten())
    plain_loss, plain_penalty = plain(tokens, targets)
    assert loss.item() == pytest.approx(plain_loss.item(), abs=1e-5)
    assert (out.penalty is None) == (plain_penalty is None)
    if plain_penalty is not None:
        assert out.penalty.item() == pytest.approx(plain_penalty.item(), abs=1e-6)


def test_a_padded_vocabulary_moves_the_loss_by_less_than_its_tokens():
    ours, plain, (tokens, targets) = both("none", vocab_multiple=64)
    out = ours(tokens)
    loss = head_loss(out.hidden.flatten(0, 1), ours.head_weight, targets.flatten())
    padded, _ = plain(tokens, targets)
    assert 0 < padded.item() - loss.item() < 0.5  # log(192 / 130) = 0.39, at equal logits


@pytest.mark.parametrize("dropout", ["none", "learned", "standard"])
@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_both_step_on_a_config_and_move_every_weight(kind, dropout, tmp_path: Path):
    overrides = (*SMALL, *STEP, f"dropout={dropout}", "schedule.warmup_steps=1")
    stepper = Stepper(Spec(kind, overrides, "float32"), tmp_path)
    before = [p.detach().clone() for p in stepper.built.model.parameters()]
    reply = stepper.reply(3)
    assert len(reply["times_s"]) == 3 and min(reply["times_s"]) > 0
    assert all(abs(loss - 4.87) < 0.3 for loss in reply["losses_nats"])  # log(130)
    assert stepper.facts["tokens_per_step"] == 60
    assert not any(
        p.equal(old) for p, old in zip(stepper.built.model.parameters(), before, strict=True)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_a_hundred_steps_on_the_same_batches_go_the_same_way(
    dtype, tolerance, tmp_path: Path, monkeypatch
):
    """In bfloat16 the two round in different places, and the steps add that up."""
    overrides = (*SMALL, *STEP, "dropout=none", "optimizer.lr=1e-2", "schedule.warmup_steps=0")
    torch.manual_seed(0)
    windows = torch.randint(130, (8, 3, 11))  # few enough to be learned by heart
    losses = []
    for kind in ("ours", "plain"):
        batches = cycle([(w[:, :-1].contiguous(), w[:, 1:].contiguous()) for w in windows])
        monkeypatch.setattr(Batches, "gather", lambda *_, batches=batches: next(batches))
        monkeypatch.setattr(PlainTrainer, "get_batch", lambda _, batches=batches: next(batches))
        losses.append(Stepper(Spec(kind, overrides, dtype), tmp_path).reply(100)["losses_nats"])
    ours, plain = (torch.tensor(x) for x in losses)
    assert ours[-1] < 0.5 * ours[0]
    assert (ours - plain).abs().max() < tolerance * ours[0]


@pytest.mark.skipif(native.library() is None, reason="no compiler here")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_a_hundred_learned_steps_by_the_kernels_and_by_their_parts(
    dtype, tolerance, tmp_path: Path, monkeypatch
):
    """One noise, so one mask but where M is a rounding away from its N; every other kernel is off."""
    options = ("dropout=learned", "dropout.shift_init=1.2", "optimizer.lr=1e-2")
    spec = Spec("ours", (*SMALL, *STEP, *options, "schedule.warmup_steps=0"), dtype)
    torch.manual_seed(0)
    windows = torch.randint(130, (8, 3, 11))

    def losses():
        batches = cycle([(w[:, :-1].contiguous(), w[:, 1:].contiguous()) for w in windows])
        monkeypatch.setattr(Batches, "gather", lambda *_: next(batches))
        return torch.tensor(Stepper(spec, tmp_path).reply(100)["losses_nats"])

    compiled = losses()
    for module in ("attention", "gelu", "learned_mask", "linear"):
        monkeypatch.setattr(f"ops.{module}.native", SimpleNamespace(usable=lambda _: False))
    monkeypatch.setattr("ops.head.native", SimpleNamespace(usable=lambda _: False))
    parts = losses()
    assert compiled[-1] < 0.7 * compiled[0]
    assert not compiled.equal(parts)
    assert (compiled - parts).abs().max() < tolerance * compiled[0]


def test_plain_drops_where_the_standard_preset_does(monkeypatch, tmp_path: Path):
    """The embeddings' sum, attention's probabilities, and the outputs of attention and MLP."""
    overrides = (*SMALL, *STEP, "micro_batch_size=6", "dropout=standard", "dropout.p=0.2")
    model = build_model(compose_config(Spec("ours", overrides, "float32")))
    places = [module.p for module in model.modules() if isinstance(module, StandardDropout)]
    stepper, rates = Stepper(Spec("plain", overrides, "float32"), tmp_path), []
    dropout, attention = F.dropout, F.scaled_dot_product_attention

    def noted(x, p, *rest):
        rates.append(p)
        return dropout(x, p, *rest)

    def noted_attention(*qkv, dropout_p, **options):
        rates.append(dropout_p)
        return attention(*qkv, dropout_p=dropout_p, **options)

    monkeypatch.setattr(F, "dropout", noted)
    monkeypatch.setattr(F, "scaled_dot_product_attention", noted_attention)
    stepper.reply(1)
    assert places == rates == [0.2] * (1 + 2 * 3)
