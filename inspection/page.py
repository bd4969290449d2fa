"""One self-contained HTML page of sections: a claim, its figure, how to read it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

STYLE = """
:root { --quiet: #5c6873; --line: #e6e9ec; color-scheme: light dark;
  color: #1c2b3a; background: #fff; font: 16px/1.55 system-ui, "Segoe UI", sans-serif }
body { max-width: 872px; margin: 0 auto; padding: 40px 20px 80px }
h1 { font-size: 1.7rem; margin: 0 0 .3rem }
h2 { font-size: 1.2rem; margin: 3.4rem 0 .3rem }
h3 { font-size: .95rem; font-weight: 600; margin: 1.3rem 0 .25rem }
h3 small { font-weight: 400; color: var(--quiet) }
p { margin: .4rem 0 .9rem }
.facts, figcaption, nav { color: var(--quiet); font-size: .9rem }
h1, h2, .facts, p { overflow-wrap: anywhere }
nav { display: flex; flex-wrap: wrap; gap: 0 1.1em } nav a { color: inherit }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto; display: block }
.wide { overflow-x: auto } .wide img { display: block; max-width: max(100%, 600px) }
figcaption { margin-top: .5rem }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0 }
th, td { text-align: left; padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid var(--line) }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums }
@media (prefers-color-scheme: dark) {
  :root { --quiet: #a3adb7; --line: #39424b; color: #e3e7eb; background: #14191e }
  .wide { background: #fff; padding: 6px }  /* pictures are drawn for white */
}
"""


@dataclass(frozen=True)
class Picture:
    """An SVG and the file name to keep it under; `inline` ones answer to the pointer."""

    name: str
    svg: str
    title: str = ""
    note: str = ""
    inline: bool = False


@dataclass(frozen=True)
class Section:
    """`statement` is what was measured, in words and figures; `caption` says how to read."""

    title: str
    statement: str
    pictures: Sequence[Picture] = ()
    caption: str = ""
    table: Sequence[Sequence[str]] = field(default=())  # its first row is the head

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def render_page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The whole page as text; it refers to no other file."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    known = " · ".join(f"{escape(name)} {escape(value)}" for name, value in facts.items())
    body = "\n".join(_render_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n"
        f'<p class="facts">{known}</p>\n<nav>{links}</nav>\n{body}\n</html>\n'
    )


def _render_section(section: Section) -> str:
    pictures = "".join(_render_picture(p, section.statement) for p in section.pictures)
    caption = f"<figcaption>{escape(section.caption)}</figcaption>" if section.caption else ""
    return (
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>'
        f"<p>{escape(section.statement)}</p>"
        f"<figure>{pictures}{caption}</figure>{_render_table(section.table)}</section>"
    )


def _render_picture(picture: Picture, alt: str) -> str:
    note = f" <small>{escape(picture.note)}</small>" if picture.note else ""
    head = f"<h3>{escape(picture.title)}{note}</h3>" if picture.title else ""
    if picture.inline:
        return head + picture.svg
    # As an image, so that the ids inside one SVG cannot meet those of another; where the screen is
    # narrower than its letters can bear, it scrolls in its own box.
    data = b64encode(picture.svg.encode()).decode()
    image = f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
    return f'{head}<div class="wide">{image}</div>'


def _render_table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<table><tr>{head}</tr>{body}</table>"
