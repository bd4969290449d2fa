"""A forward pass without the rows that a model's token masks drop: arithmetic that is really saved."""

from typing import Protocol, cast

import torch
from torch import Tensor

from common.errors import UserError
from model.block import Block
from model.gpt import GPT
from model.slots import Slot, Tape
from ops.attention import causal_attention

BRANCHES = ("residual_attention", "residual_mlp")


class KnownBefore(Protocol):
    """A dropout whose mask of one number a token is known before its branch is computed."""

    wants_mask_source: bool

    def keeps(self, source: Tensor) -> Tensor:
        """Which positions evaluation keeps, (B, T), bool, from the model's mask source."""
        ...


def check_can_leave_out(model: GPT) -> None:
    """UserError unless `leave_out` gives what `model` gives in evaluation."""
    for slot in model.modules():
        if not isinstance(slot, Slot) or slot.is_empty:
            continue
        known = hasattr(slot.dropout, "keeps") and getattr(slot.dropout, "wants_mask_source", False)
        if slot.name not in BRANCHES or not known:
            raise UserError(
                f"the dropout at {slot.key} is not known before its branch: rows can be left out of a "
                "model whose dropouts are none and, at residual_attention and residual_mlp, "
                "learned_token with mask_from=embedding"
            )


@torch.no_grad()
def leave_out(model: GPT, tokens: Tensor) -> Tensor:
    """`model(tokens).hidden` in evaluation, (B, T, n_embd), of the kept rows alone.

    An MLP sees the positions that its mask keeps. Every position's key and value may be read by later
    ones, so an attention of which anything is kept leaves out only its dropped positions' output
    projection; one of which nothing is kept is not computed. For models that `check_can_leave_out`
    allows.
    """
    tape = Tape()
    x = model.token_embedding(tokens)
    if model.position_embedding is not None:
        x = x + model.position_embedding.weight[: tokens.shape[1]]
    source = None if model.mask_source is None else model.mask_source(x)
    for module in model.blocks:
        block = cast(Block, module)
        _add_attention(block, x, _kept_rows(block.residual_attention, source), tape)
        _add_mlp(block, x, _kept_rows(block.residual_mlp, source), tape)
    return model.norm(x)


def _kept_rows(slot: Slot, source: Tensor | None) -> Tensor | None:
    """The kept positions' places in (B T), int64; None where all are."""
    if slot.dropout is None or source is None:
        return None
    keeps = cast(KnownBefore, slot.dropout).keeps(source)
    rows = keeps.flatten().nonzero().squeeze(1)
    return None if len(rows) == keeps.numel() else rows


def _add_attention(block: Block, x: Tensor, rows: Tensor | None, tape: Tape) -> None:
    """x + attention(norm(x)) at `rows`, in place."""
    if rows is None:
        x += block.attention(block.norm_attention(x), tape)
    elif len(rows):
        attention = block.attention
        qkv = attention.with_positions(attention.qkv(block.norm_attention(x)))
        heads = causal_attention(qkv, attention.n_head, fused=attention.fused)
        out = attention.project(heads.flatten(2).flatten(0, 1)[rows])
        _add(x, rows, out)


def _add_mlp(block: Block, x: Tensor, rows: Tensor | None, tape: Tape) -> None:
    """x + mlp(norm(x)) at `rows`, in place."""
    if rows is None:
        x += block.mlp(block.norm_mlp(x), tape)
    elif len(rows):
        kept = x.flatten(0, 1)[rows].unsqueeze(0)
        _add(x, rows, block.mlp(block.norm_mlp(kept), tape).squeeze(0))


def _add(x: Tensor, rows: Tensor, out: Tensor) -> None:
    x.view(-1, x.shape[-1]).index_add_(0, rows, out.to(x.dtype))
