import re
from base64 import b64decode
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from inspection import figures
from inspection.measure import Change, Mean
from inspection.observe import Observed
from inspection.page import Picture, Section, render_page
from inspection.passage import COLORS, COLUMNS, contrast, draw_passage, flow, ink_on, shown

SVG = "{http://www.w3.org/2000/svg}"


def test_a_page_says_what_its_sections_say_and_refers_to_no_other_file():
    sections = [
        Section(
            "One <thing>",
            "5 & 3 differ.",
            [Picture("a", "<svg/>")],
            "How to read.",
            [("x",), ("y",)],
        ),
        Section(
            "Another",
            "It moves.",
            [Picture("b", "<svg id='in'/>", "a title", "a note", inline=True)],
        ),
    ]
    page = render_page("Masks", {"step": "600"}, sections)
    for text in (
        "One &lt;thing&gt;",
        "5 &amp; 3 differ.",
        "How to read.",
        "a title",
        "a note",
        "<td>y</td>",
    ):
        assert text in page
    assert "<svg id='in'/>" in page
    (data,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert b64decode(data) == b"<svg/>"
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert len(anchors) == 2 and all(f'id="{anchor}"' in page for anchor in anchors)


def test_a_passage_draws_every_token_with_its_share():
    tokens, shares = ["The", " city", "\n", "<|endoftext|>", "\x00<"], [0.0, 0.25, 0.5, 0.75, 1.0]
    root = ElementTree.fromstring(draw_passage(tokens, shares))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts == ["The", "\u00a0city", "↵", "■", "·<", "0%", "100% ones"]
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert [title.rsplit(" ", 1)[1] for title in titles] == [f"{share:.3f}" for share in shares]


def test_a_greater_share_is_darker_also_in_grey():
    root = ElementTree.fromstring(draw_passage(["a"] * 5, [0.0, 0.25, 0.5, 0.75, 1.0]))
    fills = [rect.get("fill") for rect in root.findall(f"{SVG}g/{SVG}rect")]
    grey = [
        sum(weight * int(fill[i : i + 2], 16) for weight, i in ((0.30, 1), (0.59, 3), (0.11, 5)))
        for fill in fills
    ]
    assert grey == sorted(grey, reverse=True) and min(a - b for a, b in pairwise(grey)) > 20


def test_lines_of_a_passage_fit_and_lose_nothing():
    texts = [shown(token) for token in [" word", "ing", "x" * 200] * 30]
    places, rows = flow(texts)
    assert [text for _, _, text in places] == texts
    assert all(column + len(text) <= COLUMNS for _, column, text in places)
    assert places == sorted(places, key=lambda place: place[:2]) and rows == places[-1][0] + 1


def test_text_is_legible_on_every_colour():
    assert contrast("white", "black") == pytest.approx(21)
    colors = [to_hex(COLORS(share)) for share in np.linspace(0, 1, 101)]
    assert min(contrast(ink_on(color), color) for color in colors) >= 4.5


def test_a_mask_that_does_not_look_has_no_bar():
    still, moved = Mean(0.4, 0.01), Mean(0.6, 0.01)
    looks, not_ = Change(still, moved), Change(still, still)
    modes = {"evaluation": looks, "training": looks, "random": not_}
    ax = figures.draw_input_dependence({"block0/mlp_output": modes}).axes[0]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.2, 0.2, 0])


@pytest.mark.parametrize("count", [1, 4, 13])
def test_the_same_picture_gives_the_same_bytes(count):
    lines = {f"block{i}/mlp_output": ([0, 10, 20], [1.0, 0.9 - i / 40, 0.5]) for i in range(count)}
    first, second = (
        figures.drawn(figures.draw_ones_history, {"evaluation": lines}) for _ in range(2)
    )
    assert first == second
    ElementTree.fromstring(first)


def test_shades_run_from_pale_to_dark():
    grey = [0.30 * r + 0.59 * g + 0.11 * b for r, g, b, _ in figures.shades(26)]
    assert grey == sorted(grey, reverse=True)


def test_names_at_the_ends_of_lines_keep_apart():
    ax = figures.Figure().subplots()
    ax.set_ylim(0, 1)
    ends = {"a": 0.500, "b": 0.501, "c": 0.502, "d": 0.9}
    figures.draw_lines(ax, np.array([0, 1]), {name: np.array([0, y]) for name, y in ends.items()})
    heights = {text.get_text(): text.xy[1] for text in ax.texts}
    assert heights["d"] == 0.9
    assert min(heights["b"] - heights["a"], heights["c"] - heights["b"]) >= 0.055 - 1e-9


def test_the_batchs_picture_counts_what_is_dropped():
    mask = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]])
    figure = figures.draw_batch_mask(mask)
    assert [text.get_text() for text in figure.axes[1].texts] == ["2", "3", "0"]


def test_histograms_above_an_empty_cell_keep_their_labels():
    seen = {f"block{i}/mlp_output": Observed(*[torch.rand(1, 2, 3)] * 4) for i in range(5)}
    panels = figures.draw_histograms(seen).axes
    labelled = [axes.xaxis.get_tick_params()["labelbottom"] for axes in panels]
    assert labelled == [False, True, True, True, True]
