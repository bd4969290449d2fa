"""A passage of text as SVG, each token on a colour of its own; it stands on white anywhere."""

from collections.abc import Sequence
from html import escape

from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

# Pale to dark: the order survives a greyscale print.
COLORS = LinearSegmentedColormap.from_list("ones", ["#f4f7fa", "#8fb3d6", "#153a63"])
CHARACTER, LINE, MARGIN, SIZE = 8.0, 21, 8, 13.3  # px; SIZE is the font's
COLUMNS = 64  # characters a line: legible on a telephone's screen too
WORD = 12  # characters that a word is given room for


def draw_passage(tokens: Sequence[str], shares: Sequence[float]) -> str:
    """`tokens` in reading order, each on the colour of its share in [0, 1].

    Pointing at a token shows its share. Line breaks in the text are drawn as a return sign. The
    last line says what the colours mean.
    """
    places, rows = flow([shown(token) for token in tokens])
    parts = []
    for (row, column, text), share in zip(places, shares, strict=True):
        x, y, width = MARGIN + column * CHARACTER, MARGIN + row * LINE, len(text) * CHARACTER
        color = to_hex(COLORS(share))
        parts.append(
            f"<g><title>{escape(text.strip() or 'space')}: {share:.3f}</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LINE - 3}" '
            f'fill="{color}" stroke="white" stroke-width="0.7"/>'
            f'<text x="{x:.1f}" y="{y + 13}" fill="{ink_on(color)}" textLength="{width:.1f}">'
            f"{escape(text)}</text></g>"
        )
    below = MARGIN + rows * LINE + 6
    width, height = 2 * MARGIN + COLUMNS * CHARACTER, below + 14 + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-size="{SIZE}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}{_scale(below)}</svg>'
    )


def ink_on(color: str) -> str:
    """White or black, whichever is read more easily on a colour: at least 4.5:1, as WCAG asks."""
    return "white" if contrast("white", color) > contrast("black", color) else "black"


def contrast(color: str, other: str) -> float:
    """WCAG's contrast ratio of two colours, from 1 to 21."""
    dark, light = sorted(_luminance(each) for each in (color, other))
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _scale(y: float) -> str:
    """What the colours mean, from 0 to 1, at the height `y`."""
    n_step, width, start = 20, 9, MARGIN + 3 * CHARACTER
    boxes = "".join(
        f'<rect x="{start + i * width}" y="{y}" width="{width + 0.5}" height="12" '
        f'fill="{to_hex(COLORS((i + 0.5) / n_step))}"/>'
        for i in range(n_step)
    )
    end = start + n_step * width + CHARACTER
    words = ((MARGIN, "0%"), (end, "100% ones"))
    return boxes + "".join(f'<text x="{x}" y="{y + 11}">{word}</text>' for x, word in words)


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
