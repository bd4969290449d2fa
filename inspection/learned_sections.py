"""What only a mask made from the input can show."""

from collections.abc import Mapping

from inspection import figures
from inspection.measure import input_dependence, ones_history, prefix_change
from inspection.observe import Observed, label, learned_only, observe
from inspection.page import Picture, Section
from inspection.passage import draw_passage
from inspection.subject import Subject


def passage_section(subject: Subject) -> Section:
    seen = learned_only(observe(subject.model, subject.passage, subject.machine, training=False))
    pictures, spans = [], []
    for key, observed in seen.items():
        shares = observed.mask[0].mean(-1).tolist()
        least, most = f"{min(shares):.1%}", f"{max(shares):.1%}"
        note = f"{least} ones" if least == most else f"{least} to {most} ones"
        svg = draw_passage(subject.passage_text, shares)
        name = f"passage_{key.replace('/', '_')}"
        pictures.append(Picture(name, svg, label(key, seen), note, inline=True))
        spans.append((max(shares) - min(shares), key))
    widest, key = max(spans)
    return Section(
        "Ones by token",
        f"How much of the stream a token keeps depends on the token: in {label(key, seen)} the share "
        f"of ones differs by {100 * widest:.0f} percentage points within one passage.",
        pictures,
        "Masks of evaluation, one passage per module; point at a token for its share.",
    )


def history_section(subject: Subject, seen: Mapping[str, Observed]) -> Section:
    modes = {"eval": "evaluation: M ≥ ½", "train": "training: drawn with probability M"}
    histories = {
        title: {key: ones_history(subject.metrics, key, mode) for key in seen}
        for mode, title in modes.items()
    }
    last = {label(key, seen): lines[1][-1] for key, lines in histories[modes["eval"]].items()}
    least, most = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
    told = f"{most[0].upper()}{most[1:]} ends with {last[most]:.1%} ones"
    return Section(
        "Ones over training",
        f"{told}, {least} with {last[least]:.1%}." if least != most else f"{told}.",
        [Picture("ones", figures.drawn(figures.draw_ones_history, histories))],
        "Share of ones in the rounded masks, at every evaluation of the run.",
    )


def histogram_section(settled: Mapping[str, Observed]) -> Section:
    decided = {
        label(key, settled): ((seen.soft_mask - 0.5).abs() > 0.4).float().mean().item()
        for key, seen in settled.items()
        if seen.soft_mask is not None
    }
    least, most = min(decided, key=decided.__getitem__), max(decided, key=decided.__getitem__)
    told = f"{decided[most]:.0%} of M is above 0.9 or below 0.1 in {most}"
    if least != most:
        told += f", {decided[least]:.0%} in {least}"
    return Section(
        "Soft masks",
        f"{told}; evaluation keeps what is at ½ or above.",
        [Picture("soft_masks", figures.drawn(figures.draw_histograms, settled))],
        "All units at all positions of the validation windows.",
    )


def prefix_section(subject: Subject) -> Section:
    seen = prefix_change(subject.model, subject.windows, subject.machine)
    after = seen.offset >= 0
    learned = sum(share[after].mean().item() for share in seen.learned.values()) / len(seen.learned)
    return Section(
        "Two texts with one beginning",
        f"Of {seen.n_compared_before:,} mask units before the first different token "
        f"{seen.n_changed_before:,} differ: a mask never looks ahead. From that token on "
        f"{learned:.1%} do; of a random mask {seen.random.mean():.1%} do anywhere."
        if seen.n_changed_before == 0
        else f"{seen.n_changed_before:,} of {seen.n_compared_before:,} mask units differ before the "
        "first different token: these masks look ahead.",
        [Picture("shared_prefix", figures.drawn(figures.draw_prefix_change, seen))],
        f"{seen.n_pairs} pairs of texts, equal up to position 0, masks of evaluation. The random mask "
        "keeps each unit as often as the learned one does, and looks at nothing.",
    )


def dependence_section(subject: Subject) -> Section:
    changes = input_dependence(subject.model, subject.windows, subject.machine)
    due = {
        mode: sum(modes[mode].due_to_input for modes in changes.values()) / len(changes)
        for mode in ("evaluation", "training", "random")
    }
    key, modes = max(changes.items(), key=lambda item: item[1]["evaluation"].due_to_input)
    most = modes["evaluation"].other_input
    return Section(
        "Does the mask adapt to its input?",
        f"In evaluation another input changes {due['evaluation']:.1%} of the mask's units that the "
        f"same input again does not (mean over modules; most in {label(key, changes)}: "
        f"{most.value:.1%} ± {most.stderr:.1%}). In training, where masks are drawn, it is "
        f"{due['training']:.1%}; for a random mask of the same rate {abs(due['random']):.1%}.",
        [Picture("input_dependence", figures.drawn(figures.draw_input_dependence, changes))],
        "A bar is the share that differs for another input, less the share that differs for the same "
        "input again: 0 for a mask that does not look. Inputs are compared at equal positions of "
        "different validation windows; ± is a standard error over windows.",
    )
