"""The mask page in a real browser: nothing overlaps and nothing overflows, narrow, wide and dark."""

import json
import shutil
import subprocess
from functools import partial
from html import escape, unescape
from pathlib import Path

import pytest

from dropout.standard import StandardDropout
from inspection.page import render_page
from inspection.report import all_sections
from tests.inspection.conftest import LEARNED, small_gpt
from tests.inspection.test_report import subject

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium and no google-chrome here"),
]

# What a page of {width} pixels measures of itself. It stands in a frame, for a browser's window has
# a least width.
PROBE = """
<body><iframe srcdoc="{page}" style="border: 0; width: {width}px; height: 900px"></iframe><pre></pre>
<script>
onload = () => {
  const frame = document.querySelector("iframe").contentDocument
  const shown = [...frame.querySelectorAll("h1, h2, h3, p, nav a, figcaption, svg, .wide, td, th")]
  const boxes = shown.map(e => [e, e.getBoundingClientRect()])
  const name = e => e.tagName + " " + e.textContent.slice(0, 40)
  const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1
    || a.bottom <= b.top + 1 || b.bottom <= a.top + 1
  const overlaps = boxes.flatMap(([e, a], i) => boxes.slice(i + 1)
    .filter(([f, b]) => !e.contains(f) && !f.contains(e) && !apart(a, b))
    .map(([f]) => [name(e), name(f)]))
  const letters = [...frame.querySelectorAll("svg text")].map(e => e.getBoundingClientRect().height)
  const style = frame.defaultView.getComputedStyle(frame.documentElement)
  document.querySelector("pre").textContent = JSON.stringify({
    shown: shown.length, overlaps, width: frame.documentElement.scrollWidth,
    beyond: boxes.filter(([, box]) => box.right > {width} || box.left < 0).map(([e]) => name(e)),
    pictures: [...frame.images].map(i => i.naturalWidth && i.getBoundingClientRect().width),
    letters: Math.min(...letters), background: style.backgroundColor,
  })
}
</script>
"""


def seen(page: str, width: int, scheme: str, folder: Path) -> dict:
    probe = PROBE.replace("{page}", escape(page)).replace("{width}", str(width))
    (folder / "probe.html").write_text(probe, encoding="utf-8")
    assert BROWSER
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
               "--disable-background-networking", "--disable-dev-shm-usage",
               f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000",
               f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}",
               "--window-size=1600,1000", "--dump-dom", (folder / "probe.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    measured = done.stdout.split("<pre>")[1].split("</pre>")[0]
    assert measured, "the page's script did not come to its end"
    return json.loads(unescape(measured))


def learned_page(machine, windows) -> str:
    """Every section, of two slots in each block: their names are the longest."""
    model = small_gpt(mlp_output=LEARNED, residual_attention=LEARNED)
    metrics = [
        {"step": step}
        | {f"modules/block{i}/{slot}/{m}/ones": 0.5
           for i in (0, 1) for slot in ("mlp_output", "residual_attention") for m in ("eval", "train")}
        for step in (0, 5, 10)
    ]  # fmt: skip
    sections = all_sections(subject(model, machine, windows, metrics=metrics))
    return render_page(f"Masks of learned,{'a_long_name' * 8}/seed1-12345678", {}, sections)


def standard_page(machine, windows) -> str:
    model = small_gpt(mlp_output=partial(StandardDropout, p=0.4))
    return render_page("Masks", {"step": "1"}, all_sections(subject(model, machine, windows)))


@pytest.mark.parametrize("make", [learned_page, standard_page])
def test_nothing_overlaps_and_nothing_overflows(make, machine, windows, tmp_path):
    page = make(machine, windows)
    for width, scheme, background in (
        (400, "light", "rgb(255, 255, 255)"),
        (400, "dark", "rgb(20, 25, 30)"),
        (1400, "light", "rgb(255, 255, 255)"),
        (1400, "dark", "rgb(20, 25, 30)"),
    ):
        found = seen(page, width, scheme, tmp_path)
        assert found["shown"] > 15 and found["pictures"]
        assert found["background"] == background
        assert found["overlaps"] == [] and found["beyond"] == []
        assert found["width"] <= width
        assert min(found["pictures"]) >= 450  # narrower, their letters would be too small to read
        assert found["letters"] is None or found["letters"] >= 9
