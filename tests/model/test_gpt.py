"""The published architecture, to the unit, and where its dropouts stand."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dropout.learned import LearnedDropout
from dropout.none import NoDropout
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from dropout.standard import StandardDropout
from model.flops import training_flops_per_token
from model.gpt import GPT, GPTConfig
from model.init import init_weights
from model.slots import SLOTS

LEARNED = partial(LearnedDropout, rounding=StochasticRounding(), penalty=MaskPenalty(squared=1.0))
PRECOMPUTED = partial(LEARNED, mask_from="embedding", detach="output")
TINY = GPTConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=12)


def tokens(batch: int = 3) -> Tensor:
    return torch.randint(50, (batch, 8), generator=torch.Generator().manual_seed(0))


def build(**dropouts) -> GPT:
    model = GPT(TINY, dropouts)
    init_weights(model, 1, TINY.n_layer)
    return model


@pytest.mark.parametrize(
    ("n_embd", "n_head", "dropouts", "count"),
    [
        (156, 12, {}, 15_441_192),
        (144, 9, {"mlp_output": LEARNED}, 15_335_424),
        (144, 9, {"mlp_output": PRECOMPUTED}, 15_418_368),
    ],
)
def test_published_parameter_counts(n_embd, n_head, dropouts, count) -> None:
    with torch.device("meta"):
        model = GPT(GPTConfig(50257, 200, 26, n_head, n_embd), dropouts)
    assert model.n_parameters() == count


def test_forward_is_the_architecture_written_out() -> None:
    model = build().double()
    w = {name: p.detach() for name, p in model.named_parameters()}
    x = w["token_embedding.weight"][tokens()] + w["position_embedding.weight"]
    for i in range(2):
        b = f"blocks.{i}."
        h = F.layer_norm(x, (12,), w[b + "norm_attention.weight"], None, 1e-5)
        q, k, v = (h @ w[b + "attention.qkv.weight"].T).split(12, -1)
        q, k, v = (t.view(3, 8, 2, 6).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(2, 3) / 6**0.5).masked_fill(
            torch.ones(8, 8).triu(1).bool(), float("-inf")
        )
        heads = (scores.softmax(-1) @ v).transpose(1, 2).reshape(3, 8, 12)
        x = x + heads @ w[b + "attention.project.weight"].T
        h = F.layer_norm(x, (12,), w[b + "norm_mlp.weight"], None, 1e-5)
        h = F.gelu(h @ w[b + "mlp.expand.weight"].T)
        x = x + h @ w[b + "mlp.project.weight"].T
    x = F.layer_norm(x, (12,), w["norm.weight"], None, 1e-5)
    hidden = model(tokens()).hidden
    torch.testing.assert_close(hidden, x)
    torch.testing.assert_close(model.logits(hidden), x @ w["token_embedding.weight"].T)


def test_fused_and_plain_attention_agree() -> None:
    torch.manual_seed(0)
    plain, fused = (
        GPT(GPTConfig(50, 8, 2, 2, 12, attention=kind)).double() for kind in ("plain", "fused")
    )
    fused.load_state_dict(plain.state_dict())
    torch.testing.assert_close(plain(tokens()).hidden, fused(tokens()).hidden)


@pytest.mark.parametrize("dropouts", [{}, {"mlp_output": LEARNED}, {"mlp_output": PRECOMPUTED}])
def test_no_position_sees_a_later_one(dropouts) -> None:
    model = build(**dropouts)
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(
        lambda module, args, out: embedded.append(out.requires_grad_())
    )
    hidden = model(tokens()).hidden
    for t in range(8):
        (gradient,) = torch.autograd.grad(hidden[:, t, 0].sum(), embedded[0], retain_graph=True)
        assert gradient[:, t + 1 :].abs().sum() == 0
        assert gradient[:, t].abs().sum() > 0


def test_each_slot_is_called_where_it_should_be_and_with_its_shape() -> None:
    shapes = {}

    class Probe(NoDropout):
        is_identity = False  # so that it is called

        def __init__(self, site) -> None:
            super().__init__(site)
            self.site = site

        def forward(self, hidden, mask_source=None, return_mask=False):
            shapes[self.site.slot, self.site.layer] = tuple(hidden.shape)
            assert hidden.shape[-1] == self.site.width
            return super().forward(hidden)

    build(**dict.fromkeys(SLOTS, Probe))(tokens())
    stream, heads, wide = (3, 8, 12), (3, 8, 2, 6), (3, 8, 48)
    special = {"attention_heads": heads, "mlp_hidden": wide}
    blocks = {(s, i): special.get(s, stream) for s in SLOTS[2:] for i in (0, 1)}
    assert shapes == {("embedding", 0): stream} | blocks  # attention's work is the kernel's


def test_attention_takes_a_rate_and_drops_nothing_in_evaluation() -> None:
    model = build(attention=partial(StandardDropout, p=0.9))
    torch.manual_seed(0)
    assert not torch.equal(model(tokens()).hidden, build()(tokens()).hidden)
    torch.testing.assert_close(model.eval()(tokens()).hidden, build()(tokens()).hidden)
    with pytest.raises(ValueError, match="learned dropout does not fit slot attention"):
        build(attention=LEARNED)


def test_penalty_is_the_mean_over_modules_and_masks_come_on_request() -> None:
    model = build(embedding=LEARNED, mlp_output=LEARNED)
    out = model(tokens(), return_masks=True)
    assert list(out.masks) == ["embedding/embedding", "block0/mlp_output", "block1/mlp_output"]
    expected = torch.stack([(m.soft_mask**2 / 2).mean() for m in out.masks.values()]).mean()
    torch.testing.assert_close(out.penalty, expected)
    assert out.stats == {} and model(tokens()).masks == {}
    with torch.no_grad():
        stats = model(tokens()).stats
    assert {"block1/mlp_output/ones", "block1/mlp_output/penalty"} < set(stats)


def test_precomputed_masks_come_from_the_embedding_alone() -> None:
    """They are known before the first block: whatever the blocks do, the masks are the same."""
    model = build(mlp_output=PRECOMPUTED).eval()
    before = model(tokens(), return_masks=True).masks["block1/mlp_output"].soft_mask
    for block in model.blocks:
        torch.nn.init.normal_(block.mlp.project.weight)
    after = model(tokens(), return_masks=True).masks["block1/mlp_output"].soft_mask
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("detach", "attention_learns", "embedding_learns"),
    [("none", True, True), ("embedding", True, False), ("output", False, False)],
)
def test_where_precomputed_masks_are_detached(detach, attention_learns, embedding_learns) -> None:
    model = build(mlp_output=partial(LEARNED, mask_from="embedding", detach=detach, shift_init=1.0))
    model(tokens()).penalty.backward()
    for learns, weight in [
        (attention_learns, model.mask_source.qkv.weight),
        (embedding_learns, model.token_embedding.weight),
    ]:
        assert (weight.grad is not None and bool(weight.grad.any())) == learns


def test_slots_that_disagree_on_detaching_the_shared_source_are_refused() -> None:
    other = partial(LEARNED, mask_from="embedding", detach="embedding")
    with pytest.raises(ValueError, match="differ in detach"):
        build(mlp_output=PRECOMPUTED, attention_output=other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 5}, "model.n_head=5 must divide model.n_embd=12"),
        ({"n_layer": 0}, "model.n_layer=0 must be at least 1"),
        ({"activation": "relu"}, "model.activation=relu must be one of gelu, gelu_tanh, selu"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfig(
            **(
                {"vocab_size": 50, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}
                | change
            )
        )


def test_an_unknown_slot_is_refused() -> None:
    with pytest.raises(ValueError, match="mlp is not a dropout slot; the slots are embedding"):
        build(mlp=NoDropout)


def test_flops_are_counted_to_the_product() -> None:
    v, t, n, c = 50, 8, 2, 12
    per_token = n * (2 * 12 * c * c + 2 * 2 * t * c) + 2 * v * c
    model = build()
    model.blocks[0].eval()
    assert training_flops_per_token(model) == 3 * per_token
    assert model.training and not model.blocks[0].training
    assert training_flops_per_token(GPT(replace(TINY, attention="fused"))) == 3 * per_token
    learned = n * (2 * 3 * c * c + 2 * 2 * t * c)
    assert training_flops_per_token(build(mlp_output=LEARNED)) == 3 * (per_token + learned)


@pytest.mark.slow
def test_compiles_to_one_graph_for_training_and_one_for_evaluation() -> None:
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    model = build(mlp_output=LEARNED)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for _ in range(3):
        compiled(tokens()).penalty.backward()
    model.eval()
    with torch.no_grad():
        for _ in range(3):
            compiled(tokens())
    assert counter.frame_count == 2
