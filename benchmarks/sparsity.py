"""What the evaluation masks of a trained run would allow to skip, and what skipping does to the clock.

    python -m benchmarks.sparsity --run runs/nano/learned_precomputed/seed1-1a2b3c4d

A mask at the MLP's output says which outputs of its last product are thrown away. Where the mask is
computed from that very output (`mask_from=input`) all of it is needed first, so the times below say
only what its masks would be worth if they were known. Where they are known before the first block
(`mask_from=embedding`) a position whose mask is all zero needs none of the MLP, and the last product
may leave out what is zero. One timed path does the first; the others do both, and multiply each
block of output channels for those positions alone that keep any of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import machine, markdown, median_time
from common.errors import UserError
from model.gpt import GPT
from model.mlp import DenseMLP

BLOCKS = (16, 32)
RESULTS = Path(__file__).parent / "results"


class Layer(NamedTuple):
    """One MLP at work: its module, its inputs (N, C), and its output's mask (N, C) in {0, 1}."""

    mlp: DenseMLP
    inputs: Tensor
    mask: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", required=True, metavar="DIR", help="a run with learned dropout")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="last")
    parser.add_argument("--windows", type=int, default=32, help="validation windows to look at")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args()

    from tracking.load import load_run

    run = load_run(options.run, options.checkpoint, options.device)
    batches = run.batches["val"]
    tokens, _ = batches.gather(batches.window_starts(options.windows, run.cfg.seed, "sparsity"))
    with run.machine.autocast():
        layers = capture(run.model, tokens)
        report = measure(layers, run.machine.device.type)
    report |= {"machine": machine(run.machine.device.type), "row": run.cfg.row_name}
    report |= {"checkpoint": options.checkpoint, "step": run.checkpoint.step}
    report["mask_from"] = sorted(
        {m.mask_from for m in run.model.modules() if hasattr(m, "mask_from")}
    )
    print(report["table"])
    out = RESULTS / f"sparsity-{run.cfg.row_name}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


@torch.no_grad()
def capture(model: GPT, tokens: Tensor) -> list[Layer]:
    """Every MLP of `model` with a masked output, in evaluation mode on `tokens` (B, T).

    ValueError where the model masks no MLP's output.
    """
    inputs: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        return lambda module, arguments: inputs.update({layer: arguments[0].flatten(0, 1)})

    mlps: list[Any] = [block.mlp for block in model.blocks]
    hooks = [mlp.register_forward_pre_hook(keep(i)) for i, mlp in enumerate(mlps)]
    masks = model.eval()(tokens, return_masks=True).masks
    for hook in hooks:
        hook.remove()
    layers = [
        Layer(mlp, inputs[i], masks[f"block{i}/mlp_output"].mask.flatten(0, 1))
        for i, mlp in enumerate(mlps)
        if f"block{i}/mlp_output" in masks
    ]
    if not layers:
        raise UserError("this model masks no MLP's output: choose a run with learned dropout there")
    return layers


def shares(layers: list[Layer]) -> dict[str, float]:
    """Shares of the outputs that are zero: alone, in whole blocks of channels, in whole branches."""
    masks = torch.stack([layer.mask for layer in layers]).float()
    found = {"single outputs": (masks == 0).float().mean().item()}
    for size in BLOCKS:
        found[f"blocks of {size} outputs"] = (~kept_blocks(masks, size)).float().mean().item()
    found["whole branches"] = (masks.amax(-1) == 0).float().mean().item()
    return found


def kept_blocks(mask: Tensor, size: int) -> Tensor:
    """(..., blocks), bool: whether a block of `size` channels keeps any; the last may be shorter."""
    padded = F.pad(mask, (0, -mask.shape[-1] % size))
    return padded.unflatten(-1, (-1, size)).amax(-1) > 0


def dense(layer: Layer) -> Tensor:
    """The masked MLP as the model computes it."""
    hidden = layer.mlp.activation(layer.mlp.expand(layer.inputs))
    return layer.mlp.project(hidden) * layer.mask


def skipping_branches(layer: Layer) -> Tensor:
    """The same, without the positions that keep nothing."""
    alive = layer.mask.amax(-1).nonzero().squeeze(-1)
    part = dense(Layer(layer.mlp, layer.inputs[alive], layer.mask[alive]))
    return torch.zeros_like(layer.mask, dtype=part.dtype).index_copy_(0, alive, part)


def skipping(layer: Layer, size: int) -> Tensor:
    """The same, without the positions that keep nothing and the blocks that no position keeps."""
    alive = layer.mask.amax(-1).nonzero().squeeze(-1)
    mask = layer.mask[alive]
    hidden = layer.mlp.activation(layer.mlp.expand(layer.inputs[alive]))
    kept = kept_blocks(mask, size)
    output = torch.zeros_like(layer.mask, dtype=hidden.dtype)
    for block, weight in enumerate(layer.mlp.project.weight.split(size)):
        rows = kept[:, block].nonzero().squeeze(-1)
        columns = slice(block * size, block * size + len(weight))
        part = F.linear(hidden[rows], weight) * mask[rows, columns]
        output[alive[rows], columns] = part.to(output.dtype)
    return output


def run_all(way: Callable[[Layer], Tensor], layers: list[Layer]) -> None:
    for layer in layers:
        way(layer)


@torch.no_grad()
def measure(layers: list[Layer], device: str, repeats: int = 20) -> dict[str, Any]:
    """The shares, and the time of all MLPs dense and skipping."""
    zero = shares(layers)
    ways = {"dense": dense, "skipping whole branches": skipping_branches}
    ways |= {f"and blocks of {size} outputs": partial(skipping, size=size) for size in BLOCKS}
    times = {
        name: median_time(partial(run_all, way, layers), repeats, device)
        for name, way in ways.items()
    }
    rows = [[f"zero: {name}", f"{share:.1%}"] for name, share in zero.items()]
    rows += [
        [f"MLPs, {name}", f"{1e3 * seconds:.2f} ms ({seconds / times['dense']:.2f})"]
        for name, seconds in times.items()
    ]
    return {"table": markdown(["", ""], rows), "zero_shares": zero, "times_s": times}


if __name__ == "__main__":
    main()
