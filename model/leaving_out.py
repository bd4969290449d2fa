"""A forward pass without the rows that a model's token masks drop: arithmetic that is really saved."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

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

    @staticmethod
    def keeps_of(modules: Sequence[Any], source: Tensor) -> Tensor:
        """Which positions evaluation keeps in each of n modules, (n, B, T), bool."""
        ...


def check_can_leave_out(model: GPT) -> None:
    """UserError unless `model` is in evaluation mode, and `leave_out` gives what it gives."""
    if model.training:
        raise UserError(
            "the model is in training mode: rows are left out in evaluation, model.eval()"
        )
    for slot in _filled_slots(model):
        known = hasattr(slot.dropout, "keeps_of") and getattr(
            slot.dropout, "wants_mask_source", False
        )
        if slot.name not in BRANCHES or not known:
            raise UserError(
                f"the dropout at {slot.key} is not known before its branch: rows can be left out of a "
                "model whose dropouts are none and, at residual_attention and residual_mlp, "
                "learned_token with mask_from=embedding"
            )


def _filled_slots(model: GPT) -> list[Slot]:
    return [slot for slot in model.modules() if isinstance(slot, Slot) and not slot.is_empty]


def known_masks(model: GPT, source: Tensor) -> dict[str, Tensor]:
    """Which positions each masked branch keeps, (B, T), bool, by its slot's key: all at once."""
    slots = _filled_slots(model)
    dropouts = [cast(KnownBefore, slot.dropout) for slot in slots]
    keeps = dropouts[0].keeps_of(dropouts, source)
    return {slot.key: keep for slot, keep in zip(slots, keeps, strict=True)}


@torch.no_grad()
def leave_out(
    model: GPT,
    tokens: Tensor,
    masks_of: Callable[[GPT, Tensor], Mapping[str, Tensor]] = known_masks,
) -> Tensor:
    """`model(tokens).hidden` in evaluation, (B, T, n_embd), of the kept rows alone.

    An MLP sees the positions that its mask keeps. Every position's key and value may be read by later
    ones, so an attention of which anything is kept leaves out only its dropped positions' output
    projection; one of which nothing is kept is not computed. For models that `check_can_leave_out`
    allows, which is asked; equal to the model but where an M is within rounding of 1/2.
    """
    check_can_leave_out(model)
    tape = Tape()
    x = model.token_embedding(tokens)
    if model.position_embedding is not None:
        x = x + model.position_embedding.weight[: tokens.shape[1]]
    masks: Mapping[str, Tensor] = {}
    if model.mask_source is not None:
        masks = masks_of(model, model.mask_source(x))
    for module in model.blocks:
        block = cast(Block, module)
        _add_attention(block, x, _rows(masks.get(block.residual_attention.key)), tape)
        _add_mlp(block, x, _rows(masks.get(block.residual_mlp.key)), tape)
    return model.norm(x)


def _rows(mask: Tensor | None) -> Tensor | None:
    """The kept positions' places in (B T), int64; None where all are."""
    if mask is None:
        return None
    rows = mask.flatten().nonzero().squeeze(1)
    return None if len(rows) == mask.numel() else rows


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
