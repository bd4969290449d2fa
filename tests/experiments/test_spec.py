from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import yaml

from experiments.spec import load_spec, table_names

ROOT = Path(__file__).parents[2]
PUBLISHED = [f"published_{name}" for name in ("nano", "nano_2015", "published", "small")]


@pytest.mark.parametrize("name", table_names())
def test_every_table_loads(name):
    assert load_spec(name).name == name


def test_there_are_these_tables_and_parts_are_none():
    assert {"adapters_nano", *PUBLISHED} <= set(table_names())
    assert not any(name.startswith("_") for name in table_names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_orders_are_those_of_the_published_figures(name):
    spec = load_spec(name)
    for claim in spec.claims:
        below, above = (
            next(getattr(p, claim.metric) for p in spec.row(row).published if p.version == "later")
            for row in (claim.lower, claim.higher)
        )
        assert below < above, claim


def test_published_sizes_are_those_of_the_published_shapes():
    def size(n_embd: int, per_block: int = 0) -> int:
        return 50257 * n_embd + 26 * (12 * n_embd**2 + 2 * n_embd + per_block) + n_embd

    baseline = size(156)
    learned = size(144, per_block=3 * 144**2 + 144)
    for row in load_spec("published_nano").rows:
        expected = {"none": baseline, "standard": baseline, "learned": learned}[row.family]
        expected += 4 * 144**2 if row.name == "learned_precomputed" else 0
        sizes = [p.parameters for p in row.published if p.parameters is not None]
        assert sizes in ([], [expected]), row.name


@pytest.mark.parametrize(
    ("table", "configs"),
    [
        ("published_nano", ["published"]),
        ("adapters_nano", ["adapters"]),
        ("rivals_nano", ["rivals"]),
        ("modern_nano", ["modern", "modern_decay"]),
        ("family_nano", ["family", "family_without_rate"]),
        ("controls_nano", ["controls", "controls_as_learned"]),
        ("placement_nano", ["placement", "placement_none"]),
        ("next_steps_nano", ["next_steps"]),
        ("digits_nano", ["corpora"]),
        ("surface_0.2m_41k", ["surface", "surface_decay"]),
    ],
)
def test_the_rows_are_those_of_the_configs(table, configs):
    assert {name for config in configs for name in row_names(config)} == {
        row.name for row in load_spec(table).rows
    }


def row_names(config: str) -> Iterator[str]:
    """The names of the rows that a table's file sweeps over."""
    content = yaml.safe_load((ROOT / f"configs/table/{config}.yaml").read_text())
    swept = {
        key: [value.strip() for value in str(values).split(",")]
        for key, values in content["hydra"]["sweeper"]["params"].items()
        if key != "seed"
    }
    for values in product(*swept.values()):
        given = dict(zip(swept, values, strict=True))
        file = ROOT / f"configs/row/{given['row']}.yaml"
        name = yaml.safe_load(file.read_text())["row_name"]
        for key, value in given.items():
            name = name.replace(f"${{{key}}}", value)
        yield name


def test_an_unknown_table_is_told_which_there_are():
    for name in ("publishd_nano", "_published", "nowhere.yaml"):
        with pytest.raises(ValueError, match=rf"table='{name}' must be one of adapters_nano, "):
            load_spec(name)


PATTERN = """
title: t
command: c
rows:
  - {name: none, label: none, family: none}
  - name: "token_{p}_wd{decay}"
    label: "token {p}, decay {decay}"
    family: token
    each: {decay: [0.1, 1], p: [0.05, x]}
comparisons: [{best_of: [none, "token_*_wd1"], rows: ["token_0.05_*"]}]
kinds: [{name: token, of: ["token_*"]}]
"""


def test_one_description_stands_for_a_row_of_every_combination(tmp_path):
    (tmp_path / "mine.yaml").write_text(PATTERN)
    spec = load_spec(str(tmp_path / "mine.yaml"))
    tokens = ["token_0.05_wd0.1", "token_x_wd0.1", "token_0.05_wd1", "token_x_wd1"]
    assert [row.name for row in spec.rows] == ["none", *tokens]
    assert spec.row("token_x_wd1").label == "token x, decay 1"
    (comparison,) = spec.comparisons
    assert comparison.best_of == ("none", "token_0.05_wd1", "token_x_wd1")
    assert comparison.rows == ("token_0.05_wd0.1", "token_0.05_wd1")
    assert spec.kinds[0].of == tuple(tokens)


ROWS = "title: t\ncommand: c\nrows: [{name: none, label: none, family: none}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not readable YAML"),
        ("[]", "must hold keys and values"),
        ("title: t\ncommand: c\n", "`rows` is missing"),
        ("title: t\ncommand: c\nrows: []\n", "rows=.. must be some"),
        ("title: t\ncommand: c\nrows: 3\n", "`rows` is an integer, it must be a list"),
        (
            "title: t\ncommand: c\nrows: [{name: none}]\n",
            r"`rows\[0\].label` is missing: a row must have it",
        ),
        (ROWS + "kinds: [{name: a, of: [b_*]}]\n", "'b_[*]' is the name of none of its rows"),
        (ROWS + "kinds: [{name: a, of: [none]}, {name: a, of: [none]}]\n", "must each have a name"),
        (ROWS + "kinds: [{name: a, of: []}]\n", "the kind 'a' must have rows: `of` is empty"),
        (ROWS + "kinds: [{name: a, of: [b]}]\n", "'b' is not one of its rows"),
        (ROWS + "comparisons: [{best_of: [b_*]}]\n", "'b_[*]' is the name of none of its rows"),
        (ROWS.replace("}]", ", each: 3}]"), "`each` is an integer, it must be"),
        (ROWS.replace("}]", ", each: {p: 3}}]"), "each.p. is an integer, it must be a list"),
        (ROWS.replace("}]", ", each: {p: [1, 1]}}]"), "must be some, and each once"),
        (
            ROWS.replace("name: none", "name: 'a_{i}'").replace("}]", ", each: {p: [1]}}]"),
            "the row 'a_{i}' names a value that its `each` does not have: p",
        ),
        (
            ROWS.replace("}]", f", each: {{p: {list(range(40))}, q: {list(range(40))}}}}}]"),
            "`each` makes more than 1000 rows",
        ),
        (ROWS + "titel: t\n", "'titel' is not a key of a table: title, rows, command"),
        (ROWS + "question: 7\n", "`question` is an integer, it must be a string"),
        (ROWS + "varies: 3\n", "`varies` is an integer, it must be a list"),
        (ROWS + "extends: 3\n", "extends='3' must be the path of a file"),
        (ROWS + "extends: mine.yaml\n", "must not extend itself"),
        (ROWS + "extends: &a [x]\nvaries: *a\n", r"\*a must be written out"),
        (ROWS.replace("label: none", "label: <b>"), r"rows\[0\].label='<b>' must be"),
        (ROWS.replace("name: none", "name: ../x"), r"rows\[0\].name='../x' must be"),
        (
            ROWS.replace("}", ", published: [{version: a, val: 1.0e+308}]}"),
            "val=1e.308 must be less",
        ),
        (ROWS.replace("}", ", published: [{version: a, note: b}]}"), "note='b' must be one of"),
        (ROWS + "comparisons: [{}]\n", "must have `against` or `best_of`"),
        (ROWS + "comparisons: [{against: none, best_of: [none]}]\n", "and not both"),
        (ROWS + "comparisons: [{against: nobody}]\n", "'nobody' is not one of its rows"),
        (ROWS + "claims: [{metric: val, lower: none, higher: x}]\n", "'x' is not one of its rows"),
        (
            ROWS + "claims: [{metric: loss, lower: none, higher: none}]\n",
            r"metric='loss' must be one of 'train', 'val' or 'ones'",
        ),
    ],
)
def test_a_table_file_with_a_mistake_is_told_which(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.yaml: .*{said}"):
        load_spec(str(path))


def test_a_table_of_ones_own_can_extend_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {ROOT / 'experiments' / '_published.yaml'}\ntitle: mine\n")
    spec = load_spec(str(path))
    assert (spec.name, spec.title, len(spec.rows)) == ("mine", "mine", 10)
