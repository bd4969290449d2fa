"""The least time that a training step can take on a machine, operation by operation.

    python -m benchmarks.roofline scale=published dropout=learned

Each operation takes at least the larger of FLOPs / (measured matrix peak) and bytes / (measured
memory bandwidth) (Williams et al. 2009). The bytes are those of an ideal fusion: a product reads its
operands and writes its result once; the elementwise work between two products rides along with
them; attention never writes its probabilities; the head writes no logits. Backward is two products for
each of forward's, with the same rule. The optimizer reads and writes each float32 parameter's weight
and two moments, and reads its gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.contender import Spec, compose_config
from benchmarks.measure import machine, markdown, matrix_peak, memory_bandwidth
from common.errors import UserError


@dataclass(frozen=True)
class Operation:
    """An operation's FLOPs and bytes over one whole training step, all layers together."""

    name: str
    flops: float
    n_bytes: float

    def seconds(self, peak: float, bandwidth: float) -> float:
        return max(self.flops / peak, self.n_bytes / bandwidth)


@dataclass(frozen=True)
class Shape:
    """What decides the work of a step; `item` is the bytes of an activation."""

    n_layer: int
    n_embd: int
    block_size: int
    vocab_size: int
    tokens: int
    micro_steps: int
    learned: bool
    n_parameters: int
    item: int = 2

    @classmethod
    def from_config(cls, cfg: Any, item: int = 2) -> Shape:
        """Of a config whose dropouts are none, standard or learned at the MLP's output."""
        if cfg.dropout.name not in ("none", "standard", "learned"):
            raise UserError(
                f"dropout={cfg.dropout.name} has no roofline here: use none, standard or learned"
            )
        model, learned = cfg.model, cfg.dropout.name == "learned"
        width = model.n_embd
        block = 12 * width**2 + 2 * width + (3 * width**2 + width if learned else 0)
        return cls(
            n_layer=model.n_layer,
            n_embd=width,
            block_size=model.block_size,
            vocab_size=model.vocab_size,
            tokens=cfg.batch_size * model.block_size,
            micro_steps=cfg.batch_size // cfg.micro_batch_size,
            learned=learned,
            n_parameters=model.n_layer * block + (model.vocab_size + model.block_size + 1) * width,
            item=item,
        )


def operations(shape: Shape) -> list[Operation]:
    """Every operation of one step, forward and backward."""
    C, layers = shape.n_embd, shape.n_layer
    found = [
        product(shape, "attention: Q, K, V", C, 3 * C, layers),
        attention(shape, "attention: softmax(QK')V"),
        product(shape, "attention: projection", C, C, layers),
        product(shape, "MLP: expand", C, 4 * C, layers),
        product(shape, "MLP: project", 4 * C, C, layers),
        residual_stream(shape),
        product(shape, "head and loss", C, shape.vocab_size, 1, output_kept=False),
        Operation("optimizer", 12.0 * shape.n_parameters, 7 * 4 * shape.n_parameters),
    ]
    if shape.learned:
        found[5:5] = [
            product(shape, "learned dropout: Q, K, V", C, 3 * C, layers),
            attention(shape, "learned dropout: softmax(QK')V"),
        ]
    return found


def product(
    shape: Shape, name: str, inner: int, outer: int, times: int, output_kept: bool = True
) -> Operation:
    """Y = X W', dX = dY W, dW = dY' X, `times` times; `output_kept=False`: Y and dY stay on chip."""
    flops = 3 * 2 * shape.tokens * inner * outer
    activations = shape.tokens * (3 * inner + (3 * outer if output_kept else 0)) * shape.item
    weights = 3 * inner * outer * shape.item * shape.micro_steps
    return Operation(name, times * flops, times * (activations + weights))


def attention(shape: Shape, name: str) -> Operation:
    """Causal attention, half of T x T: two products forward, five backward (one again of forward's).

    Reads Q, K, V and writes O; backward reads Q, K, V, O and dO and writes dQ, dK, dV.
    """
    flops = 7 * 2 * shape.tokens * shape.block_size * shape.n_embd / 2
    n_bytes = 12 * shape.tokens * shape.n_embd * shape.item
    return Operation(name, shape.n_layer * flops, shape.n_layer * n_bytes)


def residual_stream(shape: Shape) -> Operation:
    """Two float32 additions a block, forward and backward: each reads and writes the stream once."""
    n_bytes = 2 * 2 * 2 * 4 * shape.tokens * shape.n_embd
    return Operation("residual stream", 0.0, shape.n_layer * n_bytes)


def rows(found: list[Operation], peak: float, bandwidth: float) -> Iterator[list[str]]:
    """Cells of each operation, and of their sum."""
    total = sum(operation.seconds(peak, bandwidth) for operation in found)
    for operation in found:
        seconds = operation.seconds(peak, bandwidth)
        bound = "FLOPs" if operation.flops / peak >= operation.n_bytes / bandwidth else "bytes"
        intensity = operation.flops / operation.n_bytes
        yield [
            operation.name,
            f"{operation.flops / 1e9:,.1f}",
            f"{operation.n_bytes / 1e9:,.2f}",
            f"{intensity:,.0f}",
            bound,
            f"{1e3 * seconds:,.2f}",
            f"{seconds / total:.0%}",
        ]
    yield ["all", "", "", "", "", f"{1e3 * total:,.2f}", "100%"]


def measure(cfg: Any, device: str, dtype: str, size: int = 4096) -> dict[str, Any]:
    """The roofline of one step of `cfg` on this machine, with its table.

    The limits are those of a `size` x `size` product and of copying eight such float64 matrices.
    """
    peak = matrix_peak(device, dtype, size)
    bandwidth = memory_bandwidth(device, n_bytes=64 * size**2)
    shape = Shape.from_config(cfg, item=2 if dtype == "bfloat16" else 4)
    found = operations(shape)
    step_s = sum(operation.seconds(peak, bandwidth) for operation in found)
    header = ["operation", "GFLOP", "GB", "FLOP/byte", "bound by", "ms", "share"]
    return {
        "table": markdown(header, list(rows(found, peak, bandwidth))),
        "matrix_peak_flops_per_s": peak,
        "bandwidth_bytes_per_s": bandwidth,
        "step_s": step_s,
        "tokens_per_s": shape.tokens / step_s,
    }


def main(overrides: list[str]) -> None:
    from training.device import choose_machine

    cfg = compose_config(Spec("ours", tuple(overrides)))
    chosen = choose_machine(cfg.device, cfg.dtype)
    report = measure(cfg, chosen.device.type, chosen.dtype_name)
    print(machine(chosen.device.type)["name"])
    print(report["table"])
    print(f"at most {report['tokens_per_s']:,.0f} tokens/s")


if __name__ == "__main__":
    main(sys.argv[1:])
