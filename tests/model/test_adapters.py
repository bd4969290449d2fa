"""LoRA-drop, OFT and BOFT around one layer."""

import copy

import pytest
import torch
from peft import BOFTConfig, LoraConfig, OFTConfig
from peft.tuners.boft.layer import Linear as PeftBOFTLinear
from peft.tuners.lora.layer import Linear as PeftLoraLinear
from peft.tuners.oft.layer import Linear as PeftOFTLinear
from torch import nn

from dropout.multiplicative import MultiplicativeDropout
from model.adapters import (
    LoRADropAdapter,
    OrthogonalAdapter,
)
from model.adapters.orthogonal import cayley, rotate
from tests.model.adapters import every_adapter, trained


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def _no_cuda_extension(monkeypatch):
    """Keeps peft's BOFT from compiling its CUDA kernel, and from warning that it can't."""
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", lambda: None)


# All adapters


@every_adapter
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_new_adapter_computes_what_its_base_computes_bit_for_bit(factory, bias, training):
    base = nn.Linear(24, 10, bias=bias)
    hidden = torch.randn(2, 5, 24)
    expected = base(hidden)
    assert torch.equal(factory(base).train(training)(hidden), expected)


@every_adapter
def test_a_new_adapter_is_its_base_under_autocast_too(factory):
    base = nn.Linear(24, 10, bias=False)
    hidden = torch.randn(2, 5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(factory(base)(hidden), base(hidden))


@every_adapter
@pytest.mark.parametrize("bias", [False, True])
def test_merging_keeps_what_evaluation_computes(factory, bias):
    adapter = trained(factory(nn.Linear(24, 10, bias=bias))).eval()
    hidden = torch.randn(2, 5, 24)
    expected = adapter(hidden)
    assert not torch.allclose(expected, adapter.base_layer(hidden), atol=1e-2)
    merged = adapter.train().merge()
    assert type(merged) is nn.Linear
    torch.testing.assert_close(merged(hidden), expected)
    assert adapter.training


@every_adapter
def test_gradients_reach_the_adapter_and_the_input_and_not_the_base(factory):
    adapter = trained(factory(nn.Linear(24, 10)))
    hidden = torch.randn(5, 24, requires_grad=True)
    adapter(hidden).square().sum().backward()
    assert hidden.grad.abs().sum() > 0
    assert all(p.grad is None for p in adapter.base_layer.parameters())
    own = [p for p in adapter.parameters() if p.requires_grad]
    assert own and all(p.grad.abs().sum() > 0 for p in own)


# LoRA-drop


def test_a_rate_of_zero_is_pefts_lora():
    base = nn.Linear(24, 10)
    adapter = trained(LoRADropAdapter(base, rank=4, dropout_rate=0.0, alpha=12))
    peft = PeftLoraLinear(base, "x", LoraConfig(r=4, lora_alpha=12), r=4, lora_alpha=12)
    peft.lora_A["x"].weight.data = adapter.lora_a.data
    peft.lora_B["x"].weight.data = adapter.lora_b.data
    hidden = torch.randn(5, 24)
    torch.testing.assert_close(adapter(hidden), peft(hidden))


@pytest.mark.parametrize("component", ["output", "rank"])
def test_training_is_the_documented_equation(component):
    p, alpha, rank = 0.4, 6.0, 4
    base = nn.Linear(24, 10)
    adapter = trained(LoRADropAdapter(base, rank, p, alpha, seed=7, component=component))
    mask = copy.deepcopy(adapter).draw_mask()
    assert 0 < mask.sum() < mask.numel()
    hidden = torch.randn(2, 3, 24)
    a, b = adapter.lora_a, adapter.lora_b
    low = hidden @ a.T
    branch = (low * mask[0]) @ b.T if component == "rank" else (low @ b.T) * mask[:, 0]
    expected = base(hidden) + alpha / rank * branch / (1 - p)
    torch.testing.assert_close(adapter(hidden), expected)


@pytest.mark.parametrize(("scale_in_evaluation", "scale"), [(True, 0.6), (False, 1.0)])
def test_evaluation_scales_by_the_documented_factor_or_not(scale_in_evaluation, scale):
    adapter = trained(
        LoRADropAdapter(nn.Linear(24, 10), 4, 0.4, scale_in_evaluation=scale_in_evaluation)
    ).eval()
    hidden = torch.randn(5, 24)
    branch = hidden @ adapter.lora_a.T @ adapter.lora_b.T
    torch.testing.assert_close(adapter(hidden), adapter.base_layer(hidden) + scale * branch)


def test_the_mean_of_training_is_the_unscaled_branch():
    p, n_draw = 0.3, 4000
    adapter = LoRADropAdapter(nn.Linear(24, 10), 4, p, seed=1)
    mean = sum(adapter.component_scale() for _ in range(n_draw)) / n_draw
    sigma = (p / (1 - p) / n_draw) ** 0.5
    assert (mean - 1).abs().max() < 4 * sigma


def test_gradients_flow_through_kept_components_only():
    adapter = trained(LoRADropAdapter(nn.Linear(24, 10), 4, 0.5, seed=3))
    kept = copy.deepcopy(adapter).draw_mask()[:, 0].bool()
    adapter(torch.randn(5, 24)).square().sum().backward()
    assert torch.all(adapter.lora_b.grad[~kept] == 0)
    assert torch.all(adapter.lora_b.grad[kept].abs().sum(dim=1) > 0)


def test_a_seed_repeats_the_masks_whatever_else_draws():
    first, second = (LoRADropAdapter(nn.Linear(24, 10), 4, 0.5, seed=3) for _ in range(2))
    masks = torch.stack([first.draw_mask() for _ in range(4)])
    torch.manual_seed(99)
    assert torch.equal(masks, torch.stack([second.draw_mask() for _ in range(4)]))
    assert len(masks.unique(dim=0)) == 4
    first.reset_state()
    assert torch.equal(first.draw_mask(), masks[0])


@pytest.mark.parametrize("seed", [None, 3])
def test_training_goes_on_exactly_from_a_state_dict(seed):
    whole = LoRADropAdapter(nn.Linear(24, 10), 4, 0.5, seed=seed)
    half, resumed = copy.deepcopy(whole), copy.deepcopy(whole)
    nn.init.normal_(resumed.lora_a)
    for step in range(4):
        torch.manual_seed(step)
        expected = whole(torch.ones(1, 24) * step)
    for step in range(2):
        torch.manual_seed(step)
        half(torch.ones(1, 24) * step)
    resumed.load_state_dict(half.state_dict())
    for step in range(2, 4):
        torch.manual_seed(step)
        out = resumed(torch.ones(1, 24) * step)
    assert torch.equal(out, expected)


def test_the_base_trains_where_it_is_not_frozen():
    adapter = LoRADropAdapter(nn.Linear(24, 10), 4, 0.1, freeze_base_layer=False)
    assert all(p.requires_grad for p in adapter.parameters())


def test_a_negative_alpha_is_the_rank():
    assert LoRADropAdapter(nn.Linear(24, 10), 4, 0.1).alpha == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_layer": None}, "base_layer=NoneType must be a layer"),
        ({"rank": 0}, r"rank=0 must be in \[1, 10\]"),
        ({"rank": 11}, r"rank=11 must be in \[1, 10\]"),
        ({"dropout_rate": 1.0}, r"dropout_rate=1.0 must be in \[0, 1\)"),
        ({"dropout_rate": -0.1}, r"dropout_rate=-0.1 must be in \[0, 1\)"),
        ({"alpha": 0.0}, "alpha=0"),
        ({"component": "input"}, "component='input' must be 'output' or 'rank'"),
    ],
)
def test_lora_names_what_is_wrong(change, message):
    arguments = {"base_layer": nn.Linear(24, 10), "rank": 4, "dropout_rate": 0.1} | change
    with pytest.raises(ValueError, match=message):
        LoRADropAdapter(**arguments)


def test_only_a_linear_base_can_be_merged_into():
    nested = LoRADropAdapter(LoRADropAdapter(nn.Linear(24, 10), 4, 0.1), 4, 0.1)
    with pytest.raises(
        ValueError, match=r"base_layer=LoRADropAdapter must be an nn\.Linear to merge"
    ):
        nested.merge()


# OFT and BOFT


@pytest.mark.parametrize("block_size", [2, 3, 8])
def test_cayley_is_orthogonal_and_proper(block_size):
    entries = 3 * torch.randn(5, block_size * (block_size - 1) // 2, dtype=torch.float64)
    blocks = cayley(entries, block_size)
    identity = torch.eye(block_size, dtype=torch.float64).expand_as(blocks)
    torch.testing.assert_close(blocks @ blocks.mT, identity)
    torch.testing.assert_close(torch.linalg.det(blocks), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("n_factor", [1, 2, 3])
def test_the_whole_rotation_is_orthogonal_and_mixes_as_far_as_its_factors_say(n_factor):
    blocks = cayley(torch.randn(n_factor, 8, 6, dtype=torch.float64), 4)
    rotation = rotate(torch.eye(32, dtype=torch.float64), blocks)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(32, dtype=torch.float64))
    reached = (rotation != 0).sum(dim=1)
    assert torch.all(reached == 4 * 2 ** (n_factor - 1))


def test_oft_is_pefts_oft_with_the_exact_cayley_map():
    base = nn.Linear(24, 10)
    adapter = trained(OrthogonalAdapter(base, block_size=4))
    config = OFTConfig(oft_block_size=4, use_cayley_neumann=False)
    peft = PeftOFTLinear(base, "x", config, r=0)
    peft.oft_R["x"].weight.data = adapter.skew_entries.data[0]
    hidden = torch.randn(5, 24)
    torch.testing.assert_close(adapter(hidden), peft(hidden))
    merged = adapter.merge()
    peft.merge()
    torch.testing.assert_close(merged.weight, peft.base_layer.weight)


@pytest.mark.usefixtures("_no_cuda_extension")
def test_boft_of_one_factor_is_pefts_boft():
    base = nn.Linear(24, 10)
    adapter = trained(OrthogonalAdapter(base, block_size=4))
    peft = PeftBOFTLinear(base, "x", BOFTConfig(boft_block_size=4))
    row, column = torch.triu_indices(4, 4, 1)
    # peft's parameter is a full matrix, of which it takes half the difference to its transpose.
    full = torch.zeros(1, 6, 4, 4)
    full[..., row, column] = 2 * adapter.skew_entries.data
    peft.boft_R["x"].data = full
    hidden = torch.randn(5, 24)
    torch.testing.assert_close(adapter(hidden), peft(hidden))


@pytest.mark.usefixtures("_no_cuda_extension")
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_butterfly_stage_is_pefts_permutation_around_block_diagonal(stage):
    n_block, block_size = 8, 4
    features = n_block * block_size
    blocks = cayley(torch.randn(n_block, 6), block_size)
    adapter = PeftBOFTLinear(nn.Linear(features, 3), "x", BOFTConfig(boft_block_size=block_size))
    permutation = adapter.perm2mat(
        adapter.block_butterfly_perm(features, n_block // 2**stage, block_size // 2, stage)
    )
    factor = permutation @ torch.block_diag(*blocks) @ permutation.T
    weight = torch.randn(3, features)
    identities = torch.eye(block_size).expand(stage, n_block, block_size, block_size)
    ours = rotate(weight, torch.cat([identities, blocks[None]]))
    torch.testing.assert_close(ours, weight @ factor.T)


def test_dropped_blocks_leave_their_features_as_they_were():
    adapter = trained(
        OrthogonalAdapter(nn.Linear(40, 10), 4, module_dropout=MultiplicativeDropout(0.3))
    )
    same = (adapter.weight() == adapter.base_layer.weight).unflatten(1, (10, 4)).all(dim=(0, 2))
    assert same.sum() == 3
    assert torch.equal(adapter.eval().weight(), adapter.weight())


def test_rotations_are_computed_in_float32_under_autocast():
    adapter = trained(OrthogonalAdapter(nn.Linear(24, 10), 4, n_butterfly_factor=2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = adapter.weight()
    assert inside.dtype is torch.float32
    assert torch.equal(inside, adapter.weight())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_size": 5}, r"block_size=5 must divide the layer's in_features=24"),
        ({"block_size": 1}, "block_size=1 must divide .* at least 2"),
        ({"block_size": 4, "n_butterfly_factor": 0}, "n_butterfly_factor=0 must be at least 1"),
        (
            {"block_size": 4, "n_butterfly_factor": 3},
            "n_butterfly_factor=3 with block_size=4 and 6",
        ),
        ({"block_size": 3, "n_butterfly_factor": 2}, "block_size must be even"),
        (
            {"block_size": 4, "module_dropout": MultiplicativeDropout(0.1)},
            r"p=0.1 with 6 blocks drops nothing: int\(p \* 6\) = 0; take p >= 0.167",
        ),
        ({"block_size": 24, "module_dropout": MultiplicativeDropout(1.0)}, "1 block drops nothing"),
    ],
)
def test_rotation_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalAdapter(nn.Linear(24, 10), **arguments)


def test_a_rotation_needs_a_linear_layer():
    with pytest.raises(ValueError, match=r"base_layer=Embedding must be an nn\.Linear"):
        OrthogonalAdapter(nn.Embedding(24, 10), block_size=4)
