"""What a search tries: overrides that every trial has, and parameters with their ranges."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from common.door import Count, Label, Many, Number, build, read_yaml
from common.errors import UserError
from experiments.spec import Strict

if TYPE_CHECKING:
    from optuna.trial import Trial

FOLDER = Path(__file__).parent / "spaces"
OWN = ("seed", "table_name", "row_name", "row", "table", "runs_dir", "fresh")


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError("a number, a word, true, false or null")
    return value


def _override(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not key or not equals or text != text.strip():
        raise ValueError("an override of train.py, KEY=VALUE")
    if key.lstrip("+~") in OWN or key.lstrip("+~").startswith("hydra"):
        own = ", ".join(OWN)
        raise ValueError(f"an override of anything but {own} and hydra: these are the search's own")
    return text


Scalar = Annotated[Any, AfterValidator(_scalar)]
Override = Annotated[str, AfterValidator(_override)]


class Parameter(Strict):
    """One thing that trials differ in.

    A number from `low` to `high`, drawn evenly or, with `log`, evenly in its logarithm; one of
    `values`; or one of several `choices`, each a name with the overrides that it stands for.
    """

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    values: Many[Scalar] = ()
    choices: dict[Label, Many[Override]] = Field(default_factory=dict)


class Space(Strict):
    """A search's space, as its YAML file describes it.

    A trial is the mean over `seeds`. No trial is pruned before the share `prune_from` of its steps:
    what drops much learns slowly, and ends lower. 1 prunes none.
    """

    title: str
    parameters: dict[Label, Parameter]
    overrides: Many[Override] = ()
    seeds: Many[Count] = (1, 2)
    prune_from: Annotated[float, Field(ge=0, le=1)] = 0.5

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """The trial's parameters: those that it has, else new ones of the study's sampler."""
        return {name: _suggest(trial, name, one) for name, one in self.parameters.items()}

    def told(self, params: Mapping[str, Any]) -> list[str]:
        """A trial's parameters as overrides of train.py; numbers of a range to three digits."""
        overrides: list[str] = []
        for name, one in self.parameters.items():
            if one.choices:
                overrides += one.choices[params[name]]
            elif one.values:
                overrides.append(f"{name}={_word(params[name])}")
            else:
                overrides.append(f"{name}={params[name]:.3g}")
        return overrides


def _suggest(trial: "Trial", name: str, one: Parameter) -> Any:
    if one.low is not None and one.high is not None:
        return trial.suggest_float(name, one.low, one.high, log=one.log)
    return trial.suggest_categorical(name, list(one.choices or one.values))


def _word(value: Any) -> str:
    """A value as Hydra reads it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def space_names() -> list[str]:
    """The spaces that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_space(name: str) -> Space:
    """The space of that name, or of a YAML file of one's own.

    Raises UserError for an unknown name, and for a file whose entries are misspelt or describe
    nothing to search.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not name.endswith(".yaml") and name not in space_names():
        raise UserError(
            f"space={name[:100]!r} must be one of {', '.join(space_names())}, or the path of a "
            ".yaml file"
        )
    space = build(Space, read_yaml(path), path)
    _check(space, path)
    return space


def _check(space: Space, path: Path) -> None:
    if not space.parameters:
        raise UserError(f"{path}: parameters must be some: they are what is searched")
    if not space.seeds or len(set(space.seeds)) < len(space.seeds):
        raise UserError(f"{path}: seeds={list(space.seeds)} must be some, and each once")
    for name, one in space.parameters.items():
        where = f"{path}: parameters.{name}"
        given = [one.low is not None or one.high is not None, bool(one.values), bool(one.choices)]
        if sum(given) != 1:
            raise UserError(f"{where} must have `low` and `high`, or `values`, or `choices`")
        if given[0]:
            _check_range(one, where)
        elif one.log or len(one.choices or set(map(repr, one.values))) < 2:
            raise UserError(f"{where} must be two or more to choose from, and without `log`")
        elif len(set(map(repr, one.values))) < len(one.values):
            raise UserError(f"{where}.values={list(one.values)} must be each once")
        if not one.choices:
            try:
                _override(f"{name}=")
            except ValueError as error:
                raise UserError(f"{where} must be {error}") from None


def _check_range(one: Parameter, where: str) -> None:
    if one.low is None or one.high is None or not one.low < one.high:
        raise UserError(f"{where}: low={one.low} must be below high={one.high}")
    if one.log and one.low <= 0:
        raise UserError(f"{where}: low={one.low} must be above 0 with `log`")


def check_given(space: Space, given: list[str]) -> None:
    """Raise UserError where an override of the command line is none, or not for it to set."""
    searched = {name for name, one in space.parameters.items() if not one.choices}
    for one in space.parameters.values():
        searched |= {text.partition("=")[0] for many in one.choices.values() for text in many}
    for text in given:
        try:
            _override(text)
        except ValueError as error:
            raise UserError(f"{text[:100]!r} must be {error}") from None
        if text.partition("=")[0] in searched:
            raise UserError(
                f"{text}: the space searches it; a .yaml file of your own can leave it out"
            )
