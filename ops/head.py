"""The output head and its cross-entropy, without ever holding the full logits.

With logits z = W h, the mean over N positions of logsumexp(z) - z[target], in nats, has gradients

    d loss / dh = (softmax(z) - onehot(target)) W / N
    d loss / dW = (softmax(z) - onehot(target))^T h / N

which need nothing that comes later. So the forward pass forms them chunk by chunk and throws each
chunk's logits away, as Liger Kernel does (Hsu et al. 2024, arXiv 2410.10989).
"""

import logging
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError
from ops import native
from ops.linear import sums_in_float32, weight_gradient

# Logits that a training step holds at once, or other tensors of as many bytes. Larger chunks: fewer
# passes over the weight's gradient, fuller products.
CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**29}
# Whole tiles for tensor cores and AMX, rows of 16 bytes.
ROWS_MULTIPLE, VOCAB_MULTIPLE, WIDTH_MULTIPLE = 32, 64, 8
# Overwrites logits (n, V) with softmax(logits) - onehot(targets); returns the losses (n,), in nats.
Softmax = Callable[[Tensor, Tensor], Tensor]
log = logging.getLogger(__name__)


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_size: int | None = None
) -> Tensor:
    """Mean cross-entropy in nats of the logits `hidden @ weight.T`, 0-d.

    `hidden` (N, C), `weight` (V, C), `targets` (N,) int64. Products run in autocast's dtype or that
    of `hidden`; softmax and loss in float32 at least, and the weight's gradient is summed in the
    weight's dtype. `chunk_size` counts positions; None chooses it by the device. A GPU's softmax is
    one compiled kernel; where nothing compiles it is torch's own, in smaller chunks. No second
    derivatives.
    """
    _check(hidden, weight, targets, chunk_size)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _HeadLoss.apply(hidden, weight, targets, chunk_size)
    return token_losses(hidden, weight, targets, chunk_size).mean()


@torch.no_grad()
def token_losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_size: int | None = None
) -> Tensor:
    """Cross-entropy of each position in nats, (N,), without gradients; arguments as `head_loss`.

    In chunks that take no more memory than those of a training step, float32 copies included, and
    by the same kernels, which also form the gradients' part that is thrown away here.
    """
    _check(hidden, weight, targets, chunk_size)
    inputs, table = _product_operands(hidden, weight)
    columns, softmax_minus_target_ = _columns(table), _kernel(inputs) or _wide_softmax_minus_target_
    losses = hidden.new_empty(len(targets), dtype=_wide(inputs.dtype))
    with torch.autocast(hidden.device.type, enabled=False):
        for rows in _chunks(inputs, table, chunk_size, softmax_minus_target_):
            logits = _logits(inputs[rows], columns, vocab=len(weight))
            losses[rows] = softmax_minus_target_(logits, targets[rows])
            del logits
    return losses


class _HeadLoss(torch.autograd.Function):
    """Loss and both gradients in one pass; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk_size: int | None
    ) -> Tensor:
        inputs, table = _product_operands(hidden, weight)
        columns, softmax_minus_target_ = _columns(table), _kernel(inputs) or _in_torch(inputs)
        (count, width), vocab = hidden.shape, len(weight)
        hidden_needed, weight_needed = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if hidden_needed else None
        grad_weight = None
        loss = hidden.new_zeros((), dtype=_wide(inputs.dtype))
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in _chunks(inputs, table, chunk_size, softmax_minus_target_):
                logits = _logits(inputs[rows], columns, vocab)
                losses = softmax_minus_target_(logits, targets[rows])
                if softmax_minus_target_ is _narrow_softmax_minus_target_ and losses.isinf().any():
                    losses = token_losses(hidden[rows], weight, targets[rows])
                loss += losses.sum()
                if grad_hidden is not None:
                    grad_hidden[rows] = (logits @ table)[:, :width]
                if weight_needed:
                    grad_weight = _plus_product(grad_weight, logits, inputs[rows], weight)
                del logits  # before the next chunk's take their place
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.count = count
        return loss / count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if g is None else g * (scale / ctx.count) for g in ctx.saved_tensors)
        return (*scaled, None, None)


def _product_operands(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`hidden` and `weight` in the products' dtype, zero-padded to sizes that tensor cores like."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    width = hidden.shape[1] + -hidden.shape[1] % WIDTH_MULTIPLE
    padded = hidden.new_zeros(len(weight) + -len(weight) % VOCAB_MULTIPLE, width, dtype=dtype)
    padded[: len(weight), : hidden.shape[1]] = weight
    return F.pad(hidden.to(dtype), (0, width - hidden.shape[1])), padded


def _columns(table: Tensor) -> Tensor:
    """The transposed table, (C, V). A CPU multiplies by it up to four times as fast if it lies so."""
    return table.T.contiguous() if table.device.type == "cpu" else table.T


def _chunks(
    inputs: Tensor, table: Tensor, chunk_size: int | None, softmax_minus_target_: Softmax
) -> Iterator[slice]:
    """Slices of at most `chunk_size` positions, all of one length but the last.

    By default as many as fill the memory of CHUNK_ELEMENTS, counting what the softmax holds beside.
    """
    if chunk_size is None:
        limit = CHUNK_ELEMENTS.get(inputs.device.type, CHUNK_ELEMENTS["cuda"])
        if softmax_minus_target_ is _wide_softmax_minus_target_:
            narrow, wide = inputs.dtype, _wide(inputs.dtype)
            copies = 1 if narrow == wide else 2  # the cast logits and their log-softmax
            held = narrow.itemsize + copies * wide.itemsize
            limit = limit * narrow.itemsize // held
        chunk_size = _even_chunk_size(len(inputs), most=limit // len(table))
    for start in range(0, len(inputs), chunk_size):
        yield slice(start, min(start + chunk_size, len(inputs)))


def _even_chunk_size(count: int, most: int) -> int:
    """Positions a chunk, at most `most` (but one): as even as whole tiles allow."""
    if most < ROWS_MULTIPLE:
        return max(most, 1)
    most -= most % ROWS_MULTIPLE
    n_chunks = math.ceil(count / most)
    return ROWS_MULTIPLE * math.ceil(count / n_chunks / ROWS_MULTIPLE)


def _logits(inputs: Tensor, columns: Tensor, vocab: int) -> Tensor:
    """(n, padded vocabulary); the padding's logits are -inf, so that its probabilities are 0."""
    logits = inputs @ columns
    logits[:, vocab:] = -torch.inf
    return logits


def _plus_product(total: Tensor | None, logits: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """total + logits^T inputs in the shape and dtype of `weight`, without padding; in place."""
    if sums_in_float32(logits.dtype, weight):
        return weight_gradient(logits, inputs, total, weight.shape)
    vocab, width = weight.shape
    product = (logits.T @ inputs)[:vocab, :width]
    return product.to(weight.dtype) if total is None else total.add_(product)


def _kernel(inputs: Tensor) -> Softmax | None:
    """What does it in one pass through the logits; None where it cannot be compiled."""
    device, dtype = inputs.device.type, inputs.dtype
    if device != "cpu":
        return _compiled_softmax_minus_target_() if compiles_on(device) else None
    fits = dtype in (torch.float32, torch.bfloat16) and native.usable(inputs)
    return _native_softmax_minus_target_ if fits else None


def _in_torch(inputs: Tensor) -> Softmax:
    """A GPU must not be asked whether a loss is inf; a CPU takes three times as long in float32."""
    on_cpu = inputs.device.type == "cpu"
    return _narrow_softmax_minus_target_ if on_cpu else _wide_softmax_minus_target_


def _narrow_softmax_minus_target_(logits: Tensor, targets: Tensor) -> Tensor:
    """In torch, in the logits' dtype and place; inf where the target's probability underflowed."""
    torch.softmax(logits, -1, out=logits)  # each row by itself, in float32 inside
    at_target = torch.arange(len(targets)), targets  # scatter_ would walk through all of V
    probability = logits[at_target].to(_wide(logits.dtype))
    logits[at_target] = 0
    others = logits.sum(-1)  # 1 - probability, whose small values bfloat16 would lose
    logits[at_target] = -others
    others = others.to(probability.dtype)
    return torch.where(others < 0.5, -torch.log1p(-others), -probability.log())


def _native_softmax_minus_target_(logits: Tensor, targets: Tensor) -> Tensor:
    """By `ops/kernels/head.cpp`, a row at a time in cache."""
    targets = targets.contiguous()
    losses = torch.empty(len(targets), dtype=torch.float32, device="cpu")
    function = native.function("softmax_minus_target", logits.dtype)
    if function(logits.data_ptr(), targets.data_ptr(), losses.data_ptr(), *logits.shape):
        raise MemoryError(f"no memory for the softmax of {tuple(logits.shape)} logits")
    return losses


def _wide_softmax_minus_target_(logits: Tensor, targets: Tensor) -> Tensor:
    """In torch, in float32 beside the logits: exact."""
    target = targets.unsqueeze(-1)
    log_probabilities = torch.log_softmax(logits, -1, dtype=_wide(logits.dtype))
    losses = -log_probabilities.gather(-1, target)
    probabilities = log_probabilities.exp_()
    logits.copy_(probabilities.scatter_(-1, target, torch.expm1(-losses)))  # 1 - p before rounding
    return losses.squeeze(-1)


@cache
def compiles_on(device: str) -> bool:
    """Whether torch.compile works there: for a GPU it needs Triton and a C compiler. Tried once."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # of torch, Triton, the compiler or the system
        reason = str(error).strip().partition("\n")[0]
        log.warning("without a compiled softmax, so slower: nothing compiles here (%s)", reason)
        return False
    return True


@cache
def _compiled_softmax_minus_target_() -> Any:
    """One kernel that reads the logits from memory once and writes them once."""

    @torch.compile(dynamic=True)
    def kernel(logits: Tensor, targets: Tensor) -> Tensor:
        wide, target = logits.to(_wide(logits.dtype)), targets.unsqueeze(-1)
        peak = wide.amax(-1, keepdim=True)
        exponentials = (wide - peak).exp()
        total = exponentials.sum(-1, keepdim=True)
        is_target = torch.arange(logits.shape[-1], device=logits.device) == target
        logits.copy_(exponentials / total - is_target.to(wide.dtype))
        return (peak + total.log() - wide.gather(-1, target)).squeeze(-1)

    return kernel


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_size: int | None) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise UserError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be (N, C) and "
            "(V, C): flatten the batch and time dimensions first"
        )
    if weight.device != hidden.device:
        raise UserError(
            f"weight is on {weight.device} and must be on {hidden.device}, where hidden is"
        )
    if targets.shape != hidden.shape[:1] or not len(targets):
        raise UserError(
            f"targets {tuple(targets.shape)} must hold one token id for each of the "
            f"{len(hidden)} rows of hidden, and at least one"
        )
    if targets.dtype != torch.int64 or targets.device != hidden.device:
        raise UserError(
            f"targets are {targets.dtype} on {targets.device} and must be torch.int64 on "
            f"{hidden.device}, where hidden is"
        )
    on_host = targets.device.type == "cpu"  # asking a GPU would stall the step
    if on_host and not 0 <= targets.min() <= targets.max() < len(weight):
        raise UserError(
            f"targets lie between {targets.min()} and {targets.max()} and must lie in [0, "
            f"{len(weight)}): they are rows of weight. Was the text tokenized for another vocabulary?"
        )
    if chunk_size is not None and chunk_size < 1:
        raise UserError(f"chunk_size={chunk_size} must be at least 1: it counts positions")
