"""What a value may be, written beside its type: `steps: Count = MISSING`.

The annotations are pydantic's, and OmegaConf does not see them: one dataclass says to Hydra what
is composed of which types, and to pydantic what its values may be.
"""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, Strict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from cli.spelling import unknown_key
from common.errors import UserError

# What a value of another kind is told; any other error's own words stand.
_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a name",
    "list_type": "a list",
    "dict_type": "a group of keys",
    "dataclass_type": "a group of keys",
}


def rule(holds: Callable[[Any], bool], text: str) -> AfterValidator:
    """A value for which `holds` is false is answered with "KEY=VALUE must be TEXT"."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("rule", "{text}", {"text": text})
        return value

    return AfterValidator(check)


def at_least(least: float) -> AfterValidator:
    return rule(lambda value: least <= value < math.inf, f"at least {least}")


def above_zero() -> AfterValidator:
    return rule(lambda value: 0 < value < math.inf, "above 0, and finite")


def one_of(*choices: str) -> AfterValidator:
    return rule(lambda value: value in choices, f"one of {', '.join(choices)}")


def is_place(path: str) -> bool:
    """Whether a directory is there, or nothing stands in its way."""
    there = Path(path)
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    return there.is_dir()


Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict(), rule(lambda value: abs(value) < 2**63, "below 2**63")]
Count = Annotated[Whole, at_least(1)]
CountFrom0 = Annotated[Whole, at_least(0)]
Positive = Annotated[float, Strict(), above_zero()]
From0 = Annotated[float, Strict(), at_least(0)]
Place = Annotated[Text, rule(is_place, "a directory, or a path on which to make one")]


@dataclass(frozen=True)
class Shaped:
    """`Annotated[Any, Shaped(Kind)]`: any keys to Hydra, and those that `Kind` has to its rules."""

    kind: type

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler.generate_schema(self.kind)


def check_values(schema: type, values: dict[str, Any]) -> None:
    """Raise UserError at the first of `values` that `schema` does not allow, by its key."""
    try:
        _adapter(schema).validate_python(values)
    except ValidationError as error:
        raise UserError(_told(error.errors()[0], values)) from None


@cache
def _adapter(schema: type) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _told(error: ErrorDetails, values: dict[str, Any]) -> str:
    key = _path(error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        return unknown_key(key, _siblings(error["loc"], values))
    if error["type"] in ("missing", "missing_argument"):
        return f"{key} has no value: give it one, {key}=..."
    return f"{key}={error['input']} must be {_KINDS.get(error['type'], error['msg'])}"


def _path(loc: Iterable[int | str]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")


def _siblings(loc: tuple[int | str, ...], values: Any) -> list[str]:
    for part in loc[:-1]:
        values = values[part]
    return [key for key in values if key != loc[-1]]
