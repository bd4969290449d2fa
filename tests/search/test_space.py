import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cli.config import check_config, register_schema
from common.errors import UserError
from search.space import Parameter, Space, check_given, load_space, space_names

ROOT = Path(__file__).parents[2]
CONFIGS = str(ROOT / "configs")
SEARCH_MD = ROOT / "docs" / "search.md"


def params(space: Space) -> Iterator[dict[str, object]]:
    """Points of the space at which every bound, value and choice occurs."""
    ways = {
        name: list(one.choices or one.values) or [one.low, one.high]
        for name, one in space.parameters.items()
    }
    for i in range(max(map(len, ways.values()))):
        yield {name: some[i % len(some)] for name, some in ways.items()}


def check_points(space: Space, points: list[dict[str, object]]) -> None:
    """Each is a config of its own, and has what it says."""
    register_schema()
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        configs = [compose("train", [*space.overrides, *space.told(point)]) for point in points]
    for cfg, point in zip(configs, points, strict=True):
        check_config(cfg)
        assert cfg.optimizer.lr == point["optimizer.lr"]
        assert cfg.optimizer.weight_decay == point["optimizer.weight_decay"]
    assert len(set(map(str, configs))) == len(points)


@pytest.mark.parametrize("name", space_names())
def test_a_shipped_space_has_configs_that_say_so(name):
    space = load_space(name)
    check_points(space, list(params(space))[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", space_names())
def test_every_bound_value_and_choice_of_a_shipped_space_is_a_config_that_says_so(name):
    space = load_space(name)
    check_points(space, list(params(space)))


def test_the_space_that_the_documentation_shows_is_one(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", SEARCH_MD.read_text(), re.DOTALL)
    (tmp_path / "locked.yaml").write_text(text)
    space = load_space(str(tmp_path / "locked.yaml"))
    (point,) = list(params(space))[-1:]
    check_points(space, [{"optimizer.weight_decay": 0.1, **point}])


def test_overrides_are_as_hydra_reads_them():
    space = Space(
        title="t",
        parameters={
            "lr": Parameter(low=0, high=1),
            "rate": Parameter(values=(None, True, 2, "word")),
            "place": Parameter(choices={"here": ("a=1", "b=2"), "there": ()}),
        },
    )
    told = [
        space.told({"lr": 1.23456e-5, "rate": rate, "place": "here"})
        for rate in (None, True, 2, "word")
    ]
    assert [words[1] for words in told] == ["rate=null", "rate=true", "rate=2", "rate=word"]
    assert told[0] == ["lr=1.23e-05", "rate=null", "a=1", "b=2"]


GOOD = "title: t\nparameters:\n  a: {values: [1, 2]}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: t\nparameters: {}\n", "parameters must be some"),
        (GOOD + "seeds: [1, 1]\n", "seeds=[1, 1] must be some, and each once"),
        (GOOD + "prune_from: 2\n", "prune_from=2"),
        (GOOD + "overrides: [seed=3]\n", "these are the search's own"),
        (GOOD + "overrides: [dropout]\n", "KEY=VALUE"),
        (GOOD + "objective: last\n", "'objective' is not a key of a space"),
        (GOOD + "  b: {low: 1}\n", "low=1.0 must be below high=None"),
        (GOOD + "  b: {low: 2, high: 1}\n", "low=2.0 must be below high=1.0"),
        (GOOD + "  b: {low: 0, high: 1, log: true}\n", "must be above 0 with `log`"),
        (GOOD + "  b: {low: 1e-4, high: 1}\n", "is a string, it must be a number"),
        (GOOD + "  b: {}\n", "must have `low` and `high`, or `values`, or `choices`"),
        (GOOD + "  b: {low: 0, high: 1, values: [1, 2]}\n", "must have `low` and `high`, or"),
        (GOOD + "  b: {values: [1]}\n", "must be two or more to choose from"),
        (GOOD + "  b: {values: [1, 1, 2]}\n", "must be each once"),
        (GOOD + "  b: {values: [1, [2]]}\n", "a number, a word, true, false or null"),
        (GOOD + "  b: {choices: {x: [], y: [table=z]}}\n", "these are the search's own"),
        (GOOD + "  runs_dir: {values: [a, b]}\n", "these are the search's own"),
    ],
)  # fmt: skip
def test_a_space_that_means_nothing_is_refused(tmp_path, text, said):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_space(str(path))
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_an_unknown_space_names_those_that_there_are():
    with pytest.raises(UserError, match="must be one of learned, none, standard"):
        load_space("standrd")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("optimizer.lr=1", "the space searches it"),
        ("dropout/slot@dropout.attention=none", "the space searches it"),
        ("seed=1", "these are the search's own"),
        ("hydra.mode=RUN", "these are the search's own"),
        ("word", "KEY=VALUE"),
    ],
)
def test_an_override_that_would_do_nothing_is_refused(given, said):
    check_given(load_space("standard"), ["scale=small"])
    with pytest.raises(UserError, match=said):
        check_given(load_space("standard"), [given])
