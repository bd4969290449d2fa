"""What any dropout's masks can show: a batch of them, their expectation, their gradients."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inspection import figures
from inspection.gradients import UnitGradients, unit_gradients, updates
from inspection.measure import expectation
from inspection.observe import Observed, dropout_modules, label
from inspection.page import Picture, Section
from inspection.subject import Subject

SAMPLES = 16  # rows of the batch's picture


def batch_section(subject: Subject, drawn: Mapping[str, Observed]) -> Section:
    mask = drawn[subject.module].mask[:SAMPLES, -1].cpu()
    dropped = (mask == 0).sum(1).float()
    return Section(
        "Masks of a batch",
        f"In {label(subject.module, drawn)} {dropped.mean():.1f} of {mask.size(1)} units are dropped "
        f"in a sample on average: {dropped.min():.0f} at least, {dropped.max():.0f} at most.",
        [Picture("batch", figures.drawn(figures.draw_batch_mask, mask))],
        f"One training-mode draw, at the last position of {len(mask)} validation windows.",
    )


def expectation_section(subject: Subject, drawn: Mapping[str, Observed]) -> Section:
    module = dropout_modules(subject.model)[subject.module]
    seen = expectation(module, drawn[subject.module])
    chance = f"(sampling alone: {(seen.stderr.norm() / seen.output.norm().clamp_min(1e-12)):.1%})"
    if seen.soft_mask is None:
        statement = (
            f"The mean output is {relative_error(seen.output, seen.hidden):.1%} off the input "
            f"{chance}; without the module's scaling, the mean of mask × input is "
            f"{relative_error(seen.masked, seen.hidden):.1%} off."
        )
    else:
        expected = seen.soft_mask * seen.hidden
        statement = (
            f"The mean output is {relative_error(seen.output, expected):.1%} off M times the input "
            f"{chance}, and {relative_error(seen.output, seen.hidden):.1%} off the input itself: a "
            "learned mask selects with probability M and rescales nothing."
        )
    return Section(
        "Expectation over many draws",
        statement,
        [Picture("expectation", figures.drawn(figures.draw_expectation, seen))],
        f"Each point is a unit of {label(subject.module, drawn)} at one position, its input held still "
        "while masks are drawn. Percentages: root mean square of the difference, relative.",
    )


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference over that of the reference."""
    return ((value - reference).norm() / reference.norm().clamp_min(1e-12)).item()


def gradient_section(subject: Subject, drawn: Mapping[str, Observed]) -> Section:
    title, name = "Gradients of dropped units", label(subject.module, drawn)
    with torch.enable_grad():
        seen = unit_gradients(subject.model, subject.module, subject.windows, subject.targets)
    if seen is None:
        return Section(
            title,
            f"Nothing to show for {name}: no single trained linear layer makes its units, or none of "
            "them was dropped, not even in one sample alone.",
        )
    optimizer = subject.cfg.optimizer
    steps = updates(seen, optimizer.lr, optimizer.weight_decay)
    rows = [(step.optimizer, f"{step.dropped:.2g}", f"{step.kept:.2g}") for step in steps]
    return Section(
        title,
        gradient_statement(seen, name),
        [Picture("gradients", figures.drawn(figures.draw_gradients, seen))],
        f"Samples are single tokens; a unit's weights are its row of {seen.producer}. In the table, "
        f"the largest change of a weight in one step with learning rate {optimizer.lr:g}. Even without "
        "a gradient, weight decay and Adam's memory of earlier gradients move a weight.",
        [("optimizer step", "dropped units", "kept units"), *rows],
    )


def gradient_statement(seen: UnitGradients, name: str) -> str:
    """What the gradient of the units dropped in all samples is, and where it comes from."""
    norm = seen.gradient.norm(dim=1)
    which = (
        f"{int(seen.dropped.sum())} of the {len(norm)} units of {name} are dropped in all "
        f"{len(seen.mask)} samples"
    )
    largest = norm[seen.dropped].max().item()
    if largest == 0:
        return f"{which}; their weights get a gradient of exactly 0."
    through_value = seen.through_value[seen.dropped].abs().max().item()
    return (
        f"{which}. Through the units themselves their weights get a gradient of "
        f"{'exactly 0' if through_value == 0 else f'{through_value:.2g}'}, yet in all of up to "
        f"{largest:.2g} (kept units: up to {norm.max():.2g}): the rest comes through the mask, "
        "computed from the very units that it drops. Unlike a random mask, a learned one can bring a "
        "unit back."
    )
