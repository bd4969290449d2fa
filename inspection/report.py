"""A run's page: its sections in order, and the files they become."""

from pathlib import Path

from inspection.learned_sections import (
    dependence_section,
    histogram_section,
    history_section,
    passage_section,
    prefix_section,
)
from inspection.measure import ones_history
from inspection.observe import learned_only, observe
from inspection.page import Section, render_page
from inspection.sections import batch_section, expectation_section, gradient_section
from inspection.subject import Subject


def all_sections(subject: Subject) -> list[Section]:
    """Every section that the run's dropouts have something to show for."""
    drawn = observe(subject.model, subject.windows, subject.machine, training=True)
    settled = observe(subject.model, subject.windows, subject.machine, training=False)
    learned = learned_only(settled)
    sections = []
    if learned:
        sections.append(passage_section(subject))
        if all(ones_history(subject.metrics, key, "eval")[0] for key in learned):
            sections.append(history_section(subject, learned))
        sections += [
            histogram_section(learned),
            prefix_section(subject),
            dependence_section(subject),
        ]
    return [
        *sections,
        batch_section(subject, drawn),
        expectation_section(subject, drawn),
        gradient_section(subject, drawn),
    ]


def write_report(subject: Subject, directory: Path, title: str) -> Path:
    """Write `index.html`, whole by itself, and each picture as SVG; returns the page's path."""
    sections = all_sections(subject)
    directory.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for picture in section.pictures:
            (directory / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
    facts = {
        "dropout": subject.cfg.dropout.name,
        "step": f"{subject.step:,}",
        "looked at on": f"{len(subject.windows)} windows of {subject.windows.size(1)} tokens",
    }
    page = directory / "index.html"
    page.write_text(render_page(title, facts, sections), encoding="utf-8")
    return page
