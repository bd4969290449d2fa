"""Blocks of other kinds than the default: each a GPT still, and each what it says it is."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout.learned import LearnedDropout
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from model.gpt import GPT, GPTConfig
from model.init import init_weights
from model.mlp import DenseMLP, GatedMLP
from ops.linear import Linear
from ops.rotary import rotate

GPT_BLOCK = GPTConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=12)
MODERN = replace(
    GPT_BLOCK,
    mlp_ratio=8 / 3,
    activation="silu",
    norm="rms",
    positions="rotary",
    qk_norm=True,
)
VARIANTS = {
    "gpt": (GPT_BLOCK, DenseMLP),
    "gpt2": (replace(GPT_BLOCK, bias=True, activation="gelu_tanh"), DenseMLP),
    "gelu and biases": (replace(GPT_BLOCK, bias=True), DenseMLP),
    "rms norm": (replace(GPT_BLOCK, norm="rms"), DenseMLP),
    "rotary": (replace(GPT_BLOCK, positions="rotary"), DenseMLP),
    "qk norm": (replace(GPT_BLOCK, qk_norm=True), DenseMLP),
    "squared relu": (replace(GPT_BLOCK, activation="squared_relu"), DenseMLP),
    "geglu": (GPT_BLOCK, GatedMLP),
    "modern": (MODERN, GatedMLP),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)
LEARNED = partial(LearnedDropout, rounding=StochasticRounding(), penalty=MaskPenalty(squared=1.0))


def tokens() -> Tensor:
    return torch.randint(50, (3, 8), generator=torch.Generator().manual_seed(0))


def build(name: str, dropouts=None, **change) -> GPT:
    cfg, mlp = VARIANTS[name]
    model = GPT(replace(cfg, **change), dropouts or {}, mlp)
    init_weights(model, 1, cfg.n_layer, cfg.activation)
    return model


def spread(model: GPT) -> GPT:
    """`model` with weights large enough for every part of it to show in what it computes."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.5, 0.5)
    return model


@every_variant
def test_no_position_sees_a_later_one(name: str) -> None:
    model = build(name, {"mlp_output": LEARNED})
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(
        lambda module, args, out: embedded.append(out.requires_grad_())
    )
    hidden = model(tokens()).hidden
    assert hidden.shape == (3, 8, 12)
    for t in range(8):
        (gradient,) = torch.autograd.grad(hidden[:, t, 0].sum(), embedded[0], retain_graph=True)
        assert gradient[:, t + 1 :].abs().sum() == 0
        assert gradient[:, : t + 1].abs().sum((0, 2)).all()


@every_variant
def test_every_parameter_learns_and_none_but_biases_starts_at_zero(name: str) -> None:
    model = build(name)
    model.logits(model(tokens()).hidden).square().sum().backward()
    for key, parameter in model.named_parameters():
        # A key's bias moves all of a query's scores alike, which the softmax takes out again.
        learns = parameter.grad[:12] if "qkv.bias" in key else parameter.grad
        assert learns.any(), key
        assert parameter.any() != key.endswith("bias"), key


@every_variant
def test_plain_and_fused_attention_agree_and_so_does_the_compiled(name: str) -> None:
    own, plain, fused = (build(name, attention=kind) for kind in ("auto", "plain", "fused"))
    outs = [spread(model)(tokens()).hidden for model in (own, plain, fused)]
    torch.testing.assert_close(outs[1], outs[0])
    torch.testing.assert_close(outs[2], outs[0])


@every_variant
def test_bfloat16_is_near_float32(name: str) -> None:
    model = build(name)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(tokens()).hidden
    torch.testing.assert_close(hidden.float(), model(tokens()).hidden, rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_compiles_to_one_graph_with_the_same_result(name: str) -> None:
    torch.compiler.reset()  # else one variant counts as a recompilation of another
    model = build(name)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens()).hidden, model(tokens()).hidden)
    compiled(tokens()).hidden.square().sum().backward()


def test_a_modern_block_has_as_many_parameters() -> None:
    """And the gains of QK norm, one for each channel of a head."""
    wide = {"n_embd": 768, "n_head": 12, "n_layer": 1}
    counts = []
    for cfg, mlp in (VARIANTS["gpt"], VARIANTS["modern"]):
        with torch.device("meta"):
            counts.append(GPT(replace(cfg, **wide), {}, mlp).n_parameters())
    assert counts[1] == counts[0] + 2 * 64


def test_modern_is_the_architecture_written_out() -> None:
    model = spread(build("modern").double())
    w = {name: p.detach() for name, p in model.named_parameters()}

    def rms(x: Tensor, gain: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[gain]

    x = w["token_embedding.weight"][tokens()]
    for i in range(2):
        b = f"blocks.{i}."
        h = rms(x, b + "norm_attention.weight")
        q, k, v = (h @ w[b + "attention.qkv.weight"].T).split(12, -1)
        q, k, v = (t.view(3, 8, 2, 6) for t in (q, k, v))
        q = rotate(rms(q, b + "attention.norm_query.weight")).transpose(1, 2)
        k = rotate(rms(k, b + "attention.norm_key.weight")).transpose(1, 2)
        heads = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        x = x + heads.transpose(1, 2).reshape(3, 8, 12) @ w[b + "attention.project.weight"].T
        h = rms(x, b + "norm_mlp.weight")
        gate, value = (h @ w[b + f"mlp.{part}.weight"].T for part in ("gate", "value"))
        x = x + (gate * gate.sigmoid() * value) @ w[b + "mlp.project.weight"].T
    torch.testing.assert_close(model(tokens()).hidden, rms(x, "norm.weight"))


def test_gpt2_is_transformers_gpt2() -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"vocab_size": 50, "n_positions": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}
    shape |= {"bos_token_id": 0, "eos_token_id": 0}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).eval()
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    model = build("gpt2")
    weights = theirs.transformer.state_dict()
    names = (
        ("wte.", "token_embedding."), ("wpe.", "position_embedding."), ("ln_f.", "norm."),
        ("h.", "blocks."), ("ln_1.", "norm_attention."), ("ln_2.", "norm_mlp."),
        ("attn.c_attn.", "attention.qkv."), ("attn.c_proj.", "attention.project."),
        ("mlp.c_fc.", "mlp.expand."), ("mlp.c_proj.", "mlp.project."),
    )  # fmt: skip
    renamed = {}
    for name, weight in weights.items():
        is_transposed = ".c_" in name and name.endswith(".weight")  # transformers' Conv1D
        for their_name, our_name in names:
            name = name.replace(their_name, our_name)
        renamed[name] = weight.T if is_transposed else weight
    model.load_state_dict(renamed)
    expected = theirs(tokens()).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(model.logits(model(tokens()).hidden), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "model.norm=batch must be one of layer, rms"),
        ({"positions": "none"}, "model.positions=none must be one of learned, rotary"),
    ],
)
def test_a_choice_that_is_none_is_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(GPT_BLOCK, **change)


class Experts(nn.Module):
    """Two experts and a router: no `mlp_hidden`, and a loss that keeps the two in balance."""

    def __init__(self, cfg, slots) -> None:
        super().__init__()
        self.router = Linear(cfg.n_embd, 2)
        self.experts = nn.ModuleList(Linear(cfg.n_embd, cfg.n_embd) for _ in range(2))
        self.mlp_output = slots("mlp_output")

    def forward(self, x, tape) -> Tensor:
        share = self.router(x).softmax(-1)
        tape.add_loss(0.01 * share.mean((0, 1)).square().sum())
        out = torch.stack([expert(x) for expert in self.experts], -1) @ share[..., None]
        return self.mlp_output(out[..., 0], tape)


def test_an_mlp_may_add_to_the_loss_and_leaves_the_dropouts_penalty_alone() -> None:
    model = GPT(GPT_BLOCK, {"mlp_output": LEARNED}, Experts)
    shares: list[Tensor] = []
    for block in model.blocks:
        block.mlp.router.register_forward_hook(lambda m, a, out: shares.append(out.softmax(-1)))
    out = model(tokens(), return_masks=True)
    expected = sum(0.01 * share.mean((0, 1)).square().sum() for share in shares)
    torch.testing.assert_close(out.added_loss, expected)
    masks = [mask.soft_mask for mask in out.masks.values()]
    torch.testing.assert_close(out.penalty, (torch.stack(masks) ** 2 / 2).mean())
    out.added_loss.backward()
    assert model.blocks[1].mlp.router.weight.grad.any()
    assert GPT(GPT_BLOCK)(tokens()).added_loss is None


def test_a_dropout_for_a_slot_that_the_mlp_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="Experts has no slot mlp_hidden"):
        GPT(GPT_BLOCK, {"mlp_hidden": LEARNED}, Experts)
