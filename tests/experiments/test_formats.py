import pytest

from experiments import formats
from experiments.statistics import Interval


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (formats.loss, 3.4749, "3.475"),
        (formats.loss, None, "–"),
        (formats.share, 0.6167, "0.6167"),
        (formats.share, 0.0, "0.0000"),
        (formats.share, 8.564e-9, "8.56e-9"),
        (formats.signed, -0.0321, "−0.032"),
        (formats.signed, 0.0321, "+0.032"),
        (formats.signed, -0.0001, "0.000"),
        (formats.p_value, 0.0312, "0.031"),
        (formats.p_value, 1e-9, "< 0.001"),
        (formats.p_value, None, "–"),
        (formats.count, 15_441_192, "15,441,192"),
        (formats.quantity, 950.0, "950"),
        (formats.quantity, 3_420_000.0, "3.42 M"),
        (formats.quantity, 99_960_000.0, "100 M"),
        (formats.quantity, 999_700.0, "1.00 M"),
        (formats.quantity, 12_300_000_000.0, "12.3 G"),
        (formats.duration, 48.4, "48 s"),
        (formats.duration, 59.7, "1 min 00 s"),
        (formats.duration, 185.0, "3 min 05 s"),
        (formats.duration, 7620.0, "2 h 07 min"),
        (formats.memory, 400 * 2**20, "400 MiB"),
        (formats.memory, 3 * 2**29, "1.5 GiB"),
        (formats.seed_list, (3, 1, 2), "1, 2, 3"),
        (formats.plain, "a | b\n  c", "a \\| b c"),
        (formats.plain, "<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        (formats.plain, "![x](http://y) *b* `c`", "!\\[x\\](http://y) \\*b\\* \\`c\\`"),
        (formats.plain, "# no\n## heading", "\\# no ## heading"),
        (formats.plain, "&lt;b> \\", "&amp;lt;b> \\\\"),
        (formats.code, "a `b` | c", "`a 'b' \\| c`"),
        (formats.bounds, Interval(0.0, -0.5, 0.5, 0.1, 3), "[−0.500, 0.500]"),
        (formats.bounds, Interval(0.0, None, None, None, 1), "–"),
    ],
)
def test_text_of_a_value(show, value, text):
    assert show(value) == text


def test_a_markdown_table_keeps_text_as_it_is():
    text = formats.markdown(["row", "n", "said"], [["none", "1,000", "007"]], left=(2,))
    assert text.splitlines() == [
        "| row   |     n | said   |",
        "|:------|------:|:-------|",
        "| none  | 1,000 | 007    |",
    ]
