"""A passage of text as SVG, each token on a colour of its own."""

from collections.abc import Sequence
from html import escape

from matplotlib.colors import LinearSegmentedColormap, to_hex

# Pale to dark: the order survives a greyscale print.
COLORS = LinearSegmentedColormap.from_list("ones", ["#f4f7fa", "#8fb3d6", "#153a63"])
CHARACTER, LINE, MARGIN, SIZE = 8.0, 21, 4, 13.3  # px; SIZE is the font's
COLUMNS = 104  # characters a line
WORD = 12  # characters that a word is given room for


def draw_passage(tokens: Sequence[str], shares: Sequence[float]) -> str:
    """`tokens` in reading order, each on the colour of its share in [0, 1].

    Pointing at a token shows its share. Line breaks in the text are drawn as a return sign.
    """
    places, rows = flow([shown(token) for token in tokens])
    parts = []
    for (row, column, text), share in zip(places, shares, strict=True):
        x, y, width = MARGIN + column * CHARACTER, row * LINE + 2, len(text) * CHARACTER
        ink = "white" if share > 0.62 else "#1c2b3a"
        parts.append(
            f"<g><title>{escape(text.strip() or 'space')}: {share:.3f}</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LINE - 3}" '
            f'fill="{to_hex(COLORS(share))}" stroke="white" stroke-width="0.7"/>'
            f'<text x="{x:.1f}" y="{y + 13}" fill="{ink}" textLength="{width:.1f}">'
            f"{escape(text)}</text></g>"
        )
    return svg("".join(parts), 2 * MARGIN + COLUMNS * CHARACTER, rows * LINE + 4)


def draw_scale() -> str:
    """What the colours of a passage mean, from 0 to 1."""
    n_step, width = 20, 9
    boxes = "".join(
        f'<rect x="{40 + i * width}" y="3" width="{width + 0.5}" height="12" '
        f'fill="{to_hex(COLORS((i + 0.5) / n_step))}"/>'
        for i in range(n_step)
    )
    end = 40 + n_step * width
    words = f'<text x="12" y="14">0%</text><text x="{end + 8}" y="14">100% ones</text>'
    return svg(boxes + f'<g fill="#1c2b3a">{words}</g>', end + 100, 20)


def svg(content: str, width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-size="{SIZE}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">{content}</svg>'
    )


def flow(texts: Sequence[str]) -> tuple[list[tuple[int, int, str]], int]:
    """Row, column and text of each token in lines of COLUMNS characters, and the number of rows.

    A line breaks before a word where one starts near its end.
    """
    places, row, column = [], 0, 0
    for text in texts:
        starts_word = text.startswith("\u00a0")
        if column and column + (WORD if starts_word else len(text)) > COLUMNS:
            row, column = row + 1, 0
        places.append((row, column, text))
        column += len(text)
    return places, row + 1


def shown(token: str) -> str:
    """A token's text without control characters, at least one character long."""
    text = token.replace("<|endoftext|>", "■").replace("\n", "↵").replace("\t", " ")
    text = "".join(c if c.isprintable() else "·" for c in text)
    # Unlike spaces, no-break spaces are never collapsed.
    return text.replace(" ", "\u00a0")[:COLUMNS] or "·"
