"""Figures about masks: how often they change, with what, and against what chance would do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from inspection.observe import Observed, learned_only, observe
from model.gpt import GPT
from training.device import Machine


def differing(first: Tensor, second: Tensor) -> Tensor:
    """Share of units whose masks differ: (..., units) twice -> (...)."""
    return (first != second).float().mean(-1)


def random_twin(mask: Tensor, seed: int) -> Tensor:
    """A mask that knows nothing of the input: each unit kept at random, as often as in `mask`.

    `mask` (B, T, units); the rates are its means over samples and positions.
    """
    generator = torch.Generator().manual_seed(seed)
    rate = mask.mean((0, 1)).cpu().expand(mask.shape)
    return torch.bernoulli(rate, generator=generator).to(mask.device)


@dataclass(frozen=True)
class Mean:
    """A mean over windows and its standard error."""

    value: float
    stderr: float

    @classmethod
    def over_windows(cls, values: Tensor) -> "Mean":
        """Of (B, T): windows are the independent samples, positions within one are not."""
        per_window = values.double().mean(1)
        return cls(per_window.mean().item(), (per_window.std() / len(per_window) ** 0.5).item())


@dataclass(frozen=True)
class Change:
    """Share of a mask's units that change when the same input comes again, and with another one."""

    same_input: Mean
    other_input: Mean

    @property
    def due_to_input(self) -> float:
        """What the input alone changes: nothing, for a mask that does not look at it."""
        return self.other_input.value - self.same_input.value


def input_dependence(model: GPT, windows: Tensor, machine: Machine) -> dict[str, dict[str, Change]]:
    """By module, for the masks of evaluation, of training and of a random twin: their `Change`.

    `windows` (B, T). Masks of two inputs are compared at equal positions of neighbouring windows.
    """
    draws = {
        (mode, seed): learned_only(
            observe(model, windows, machine, training=mode == "training", seed=seed)
        )
        for mode in ("evaluation", "training")
        for seed in (0, 1)
    }
    found = {}
    for key, seen in draws["evaluation", 0].items():
        twins = [random_twin(seen.mask, seed) for seed in (0, 1)]
        found[key] = {
            mode: change(draws[mode, 0][key].mask, draws[mode, 1][key].mask)
            for mode in ("evaluation", "training")
        } | {"random": change(twins[0], twins[1])}
    return found


def change(mask: Tensor, again: Tensor) -> Change:
    """`again` is a second mask (B, T, units) for the same inputs as `mask`."""
    return Change(
        Mean.over_windows(differing(mask, again)),
        Mean.over_windows(differing(mask, mask.roll(1, 0))),
    )


@dataclass(frozen=True)
class PrefixChange:
    """How masks of two texts differ, position by position around their first different token.

    `offset` (T,) is 0 at that token. `learned` holds the share of differing units (T,) by module and
    `random` the same for two random twins, averaged over modules. `n_changed_before` of
    `n_compared_before` mask units differ before the token: 0, if masks are causal.
    """

    offset: Tensor
    learned: dict[str, Tensor]
    random: Tensor
    n_pairs: int
    n_changed_before: int
    n_compared_before: int


def prefix_change(model: GPT, windows: Tensor, machine: Machine) -> PrefixChange:
    """Compare each window's masks with those of a text that equals it up to the middle.

    The second text goes on as the next window does. Pairs whose middle tokens happen to be equal
    are left out, so that the first different token stands in the middle of all.
    """
    middle = windows.size(1) // 2
    other = torch.cat([windows[:, :middle], windows.roll(1, 0)[:, middle:]], dim=1)
    kept = windows[:, middle] != other[:, middle]
    if not kept.any():
        raise UserError(
            f"windows={len(windows)} have one and the same token in their middle, so that no two "
            "differ there: more are needed"
        )
    first = learned_only(observe(model, windows[kept], machine, training=False))
    second = learned_only(observe(model, other[kept], machine, training=False))
    pairs = {key: (seen.mask, second[key].mask) for key, seen in first.items()}
    before = torch.cat([(a != b)[:, :middle].flatten() for a, b in pairs.values()])
    random = [differing(random_twin(a, 0), random_twin(a, 1)).mean(0) for a, _ in pairs.values()]
    return PrefixChange(
        offset=torch.arange(windows.size(1)) - middle,
        learned={key: differing(a, b).mean(0).cpu() for key, (a, b) in pairs.items()},
        random=torch.stack(random).mean(0).cpu(),
        n_pairs=int(kept.sum()),
        n_changed_before=int(before.sum()),
        n_compared_before=before.numel(),
    )


@dataclass(frozen=True)
class Expectation:
    """Means over training draws of one dropout on one input, all (units,).

    `masked` is the mean of mask * input, unscaled; `output` that of what the module returns, and
    `stderr` its standard error.
    """

    hidden: Tensor
    soft_mask: Tensor | None
    masked: Tensor
    output: Tensor
    stderr: Tensor
    n_draw: int


@torch.no_grad()
def expectation(module: nn.Module, seen: Observed, n_draw: int = 1000) -> Expectation:
    """Draw the masks of one sample's last position `n_draw` times, its input held still."""
    hidden = seen.hidden[:1].float()
    source = None if seen.mask_source is None else seen.mask_source[:1].float()
    masked, output, square = (torch.zeros_like(hidden) for _ in range(3))
    was_training = module.training
    module.train()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(n_draw):
                out = module(hidden, source, True)
                masked += out.mask * hidden / n_draw
                output += out.hidden / n_draw
                square += out.hidden.square() / n_draw
    finally:
        module.train(was_training)
    soft_mask = None if seen.soft_mask is None else seen.soft_mask[0, -1].cpu()
    stderr = ((square - output.square()).clamp_min(0) / n_draw).sqrt()
    x, mean_masked, mean_output, error = (
        tensor[0, -1].flatten().cpu() for tensor in (hidden, masked, output, stderr)
    )
    return Expectation(x, soft_mask, mean_masked, mean_output, error, n_draw)


def ones_history(
    metrics: Sequence[Mapping[str, Any]], key: str, mode: str
) -> tuple[list[float], list[float]]:
    """Steps and ones of one module, from the lines of a run's metrics.jsonl.

    Of two evaluations at one step, the last step's, the later counts.
    """
    name = f"modules/{key}/{mode}/ones"
    ones = {line["step"]: line[name] for line in metrics if name in line}
    return list(ones), list(ones.values())
