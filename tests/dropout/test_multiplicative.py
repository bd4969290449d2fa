import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.boft.layer import MultiplicativeDropoutLayer as PeftBOFTDropout
from peft.tuners.oft.layer import MultiplicativeDropoutLayer as PeftOFTDropout

from dropout.multiplicative import MultiplicativeDropout


def is_identity(blocks: torch.Tensor) -> torch.Tensor:
    return (blocks == torch.eye(blocks.size(-1))).all(dim=(-1, -2))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.29, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    ("shape", "peft_class"),
    [((10, 4, 4), PeftOFTDropout), ((1, 4, 4), PeftOFTDropout), ((3, 10, 4, 4), PeftBOFTDropout)],
)
def test_the_same_generator_state_gives_what_peft_gives(shape, peft_class, p):
    blocks = torch.randn(shape)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = peft_class(p)(blocks)
        torch.manual_seed(seed)
        assert torch.equal(MultiplicativeDropout(p)(blocks), expected)


@given(p=st.floats(0, 1), n_block=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_exactly_int_p_d_blocks_are_the_identity_and_the_rest_unchanged(p, n_block, seed):
    torch.manual_seed(seed)
    blocks = torch.randn(n_block, 3, 3)
    out = MultiplicativeDropout(p)(blocks)
    replaced = is_identity(out)
    assert replaced.sum() == int(p * n_block) == MultiplicativeDropout(p).number_replaced(n_block)
    assert torch.equal(out[~replaced], blocks[~replaced])


def test_one_factor_of_many_is_masked_and_every_one_in_its_turn():
    blocks = torch.randn(4, 10, 3, 3)
    masked_factors = set()
    for seed in range(40):
        torch.manual_seed(seed)
        replaced = is_identity(MultiplicativeDropout(0.3)(blocks)).sum(dim=1)
        assert sorted(replaced.tolist()) == [0, 0, 0, 3]
        masked_factors.add(int(replaced.argmax()))
    assert masked_factors == {0, 1, 2, 3}


def test_every_place_is_replaced_equally_often():
    n_draw, n_block, p = 4000, 10, 0.3
    blocks = torch.randn(n_block, 2, 2)
    dropout = MultiplicativeDropout(p)
    torch.manual_seed(0)
    count = sum(is_identity(dropout(blocks)).double() for _ in range(n_draw))
    sigma = (n_draw * p * (1 - p)) ** 0.5
    assert (count - n_draw * p).abs().max() < 4 * sigma


def test_evaluation_is_the_input_itself():
    blocks = torch.randn(10, 3, 3)
    assert MultiplicativeDropout(0.5).eval()(blocks) is blocks


def test_replaced_blocks_get_no_gradient():
    blocks = torch.randn(10, 3, 3, requires_grad=True)
    out = MultiplicativeDropout(0.5)(blocks)
    out.square().sum().backward()
    replaced = is_identity(out)
    assert torch.all(blocks.grad[replaced] == 0)
    assert torch.all((blocks.grad[~replaced] != 0).any(dim=(-1, -2)))


def test_what_was_orthogonal_stays_orthogonal():
    blocks = torch.linalg.qr(torch.randn(10, 4, 4)).Q
    out = MultiplicativeDropout(0.5)(blocks)
    torch.testing.assert_close(out @ out.mT, torch.eye(4).expand(10, 4, 4))


@pytest.mark.parametrize("shape", [(10, 3, 3), (4, 10, 3, 3)])
def test_it_keeps_the_type_and_the_device_and_reads_no_number_back(shape):
    blocks = torch.zeros(shape, dtype=torch.bfloat16, device="meta")  # where there is none to read
    out = MultiplicativeDropout(0.5)(blocks)
    assert (out.dtype, out.device) == (blocks.dtype, blocks.device)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_rate_out_of_range_is_named(p):
    with pytest.raises(ValueError, match=rf"p={p} must be in \[0, 1\]"):
        MultiplicativeDropout(p)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 4), (2, 2, 2, 4, 4)])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"blocks has shape .*must be .*, square .*dimensions$"):
        MultiplicativeDropout(0.5)(torch.zeros(shape))


def test_its_rate_is_shown():
    assert repr(MultiplicativeDropout(0.25)) == "MultiplicativeDropout(p=0.25)"
    assert repr(MultiplicativeDropout()) == "MultiplicativeDropout(p=0.0)"
