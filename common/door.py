"""The one door for files from outside: plain data of a bounded size, then typed objects.

Whatever lies in a file, the answer is an object or a UserError of one line that names the file, the
entry and the rule; and it comes at once: pipes are not waited for, nothing unpacks to more than it is.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from common.errors import UserError
from common.files import read_regular

MAX_RECORD_BYTES = 8 * 2**20  # a curve of 50,000 evaluations
MAX_YAML_BYTES = 2**17  # thirty times the longest table
MAX_DEPTH = 40
_MARKUP = frozenset("<>|`$*[]\\")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _unmarked(text: str) -> str:
    if not 0 < len(text) <= 100 or not text.isprintable() or _MARKUP & set(text):
        raise ValueError("1 to 100 letters in one line, and none of < > | ` $ * [ ] \\")
    return text


def _name(text: str) -> str:
    if text.startswith(".") or set("/ ") & set(_unmarked(text)):
        raise ValueError("a name without spaces and slashes, and with no dot before it")
    return text


def as_name(text: str) -> str:
    """The text without what a name must not have; it may still be too long."""
    return "".join(c for c in text if c.isprintable() and c not in _MARKUP | {"/", " "})


# Bounds far from any result, and from where sums and squares of numbers overflow.
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Label = Annotated[str, AfterValidator(_unmarked)]
Name = Annotated[str, AfterValidator(_name)]

Element = TypeVar("Element")
Many = Annotated[tuple[Element, ...], Field(strict=False)]  # a list in the file
Built = TypeVar("Built", bound="Part")


class Part(BaseModel):
    """What a file may hold: types are taken at their word, and nothing is changed afterwards."""

    model_config = ConfigDict(
        strict=True, frozen=True, allow_inf_nan=False, populate_by_name=True, extra="ignore"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    text = _text(path, MAX_RECORD_BYTES, "JSON record")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable JSON record ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a record must be a JSON object, this is {_kind(content)}")
    if not _is_shallow(content):
        raise UserError(f"{path}: a record must be nested at most {MAX_DEPTH} deep")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file: plain data, without aliases, which unpack to more."""
    text = _text(path, MAX_YAML_BYTES, "YAML")
    try:
        _check_events(path, text)
        content = yaml.load(text, Loader=_LOADER)
    except UserError:
        raise
    except Exception as error:  # PyYAML raises anything for forged tags: KeyError, IndexError, ...
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not readable YAML ({reason})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a table's file must hold keys and values")
    return content


def build(kind: type[Built], content: Any, path: Path) -> Built:
    """The typed object, or a UserError that says which entry of the file breaks which rule."""
    try:
        return typed(kind, content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def typed(kind: type[Built], content: Any) -> Built:
    """As `build`, of content that lies in no file of its own."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(_said(kind, error.errors()[0])) from None


def _text(path: Path, max_bytes: int, what: str) -> str:
    try:
        return read_regular(path, max_bytes).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a readable {what}: it is not UTF-8 ({error})") from error
    except UserError:
        raise
    except ValueError as error:  # a path that no file can have
        raise UserError(f"{str(path)!r} is no path ({error})") from error


def _is_shallow(content: Any) -> bool:
    layer = [content]
    for _ in range(MAX_DEPTH):
        children = [v.values() if isinstance(v, dict) else v for v in layer]
        layer = [v for child in children for v in child if isinstance(v, dict | list)]
        if not layer:
            return True
    return False


def _check_events(path: Path, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}: *{event.anchor} must be written out: aliases are not read")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{path}: a table's file must be nested at most {MAX_DEPTH} deep")


_WANTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
}


def _said(kind: type[Part], error: ErrorDetails) -> str:
    """An error of pydantic's in this project's words: the entry, its value, the rule."""
    found, entry, value = error["type"], _entry(error["loc"]), error["input"]
    rule: str | Callable[[], str] = error["msg"].removeprefix("Value error, ")
    if found == "missing":
        return f"`{entry}` is missing: {_article(kind, error['loc'])} must have it"
    if found in ("extra_forbidden", "invalid_key"):
        owner = _model_at(kind, error["loc"][:-1])
        names = ", ".join(field.alias or name for name, field in owner.model_fields.items())
        return f"{entry!r} is not a key of {_article(kind, error['loc'])}: {names} are"
    if found in _WANTED:
        return f"`{entry}` is {_kind(value)}, it must be {_WANTED[found]}"
    if found == "finite_number":
        return f"`{entry}`={value} must be finite"
    if found == "literal_error":
        rule = f"one of {error['ctx']['expected']}"
    return f"{entry}={_shown(value)} must be {rule}".replace("must be Input should be", "must be")


def _entry(loc: Sequence[int | str]) -> str:
    """`rows[0].published[1].train`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return text.removeprefix(".")[:200]


def _article(kind: type[Part], loc: Sequence[int | str]) -> str:
    """`a row`, `a finished record`: what the entry belongs to, by its class's name."""
    words = re.findall("[A-Z][a-z]*", _model_at(kind, loc[:-1]).__name__)
    name = " ".join(words).lower()
    return f"a{'n' * (name[0] in 'aeiou')} {name}"


def _model_at(kind: type[Part], loc: Sequence[int | str]) -> type[Part]:
    """The class of the object that lies at `loc` in an object of `kind`."""
    for key in loc:
        for name, field in kind.model_fields.items():
            if key in (name, field.alias):
                kind = next(_parts_in(field.annotation), kind)
    return kind


def _parts_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts_in(argument)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
