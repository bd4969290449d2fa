"""The one door from a config to an object: only this project's own classes come through.

A config may be a stranger's: a checkpoint's, a record's. Hydra would import and call whatever it
names (`os.system`), so every `_target_`, at every depth, is looked up here first.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from common.errors import UserError
from common.files import StorageError, read_regular

PACKAGES = ("common", "data", "dropout", "model", "ops", "tracking", "training")

_SPECIAL = {"_target_": str, "_partial_": bool, "_convert_": str, "_recursive_": bool}
_MAX_DEPTH = 32
_MAX_BYTES = 2**18  # thirty times the longest run's
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def instantiate(node: Any, *args: Any, **kwargs: Any) -> Any:
    """Make what `node` describes, once every `_target_` in it is known to be this project's own.

    `args` and `kwargs` go to the outermost object, untouched; without a `_target_` there, the
    containers come back with the objects in them. A `DictConfig` is resolved first; a plain dict or
    list, and whatever is left after resolving, may hold no interpolation.

    A `_target_` must be the definition's own path, `package.module.Name`: not an import of it, not
    a part of it. A class is made; a function only becomes a partial (`_partial_: true`), since to
    make an object is harmless where to call any function is not.

    Raises ValueError with the key's path, the value and the rule. An error that the object's own
    constructor raises as ValueError comes through as it is.
    """
    live = isinstance(node, DictConfig | ListConfig)
    plain: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if live else node
    for path, mapping in list(_mappings(plain)):  # all of it, so that depth is refused first
        _check_keys(path, mapping)
        if "_target_" in mapping:
            _check_target(path, mapping)
    if not (args or kwargs):
        return _made_by_hydra(plain)
    if not isinstance(plain, dict) or "_target_" not in plain:
        raise UserError("arguments need a _target_ to go to, and this config has none")
    # Hydra would merge the arguments into the config, which copies tensors and modules.
    factory = _made_by_hydra({**plain, "_partial_": True})
    if plain.get("_partial_"):
        return partial(factory, *args, **kwargs)
    return factory(*args, **kwargs)


def read_config(path: Path) -> DictConfig:
    """A stored, resolved config: YAML without tags, aliases or interpolations, or ValueError."""
    try:
        text = read_regular(path, _MAX_BYTES).decode()
        _check_yaml(text)
        config = yaml.load(text, Loader=_LOADER)
        if not isinstance(config, dict):
            raise UserError("a config is a mapping")
        for where, mapping in list(_mappings(config)):
            _check_keys(where, mapping)
        return DictConfig(config)
    except StorageError:
        raise
    except Exception as error:  # PyYAML raises anything for forged tags: KeyError, IndexError, ...
        why = " ".join(str(error).split())[:300]
        raise UserError(f"the config {path} cannot be used: {why}") from error


def _check_yaml(text: str) -> None:
    """Aliases can make a few bytes unfold into gigabytes, and depth makes the parser crawl."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise UserError("a resolved config has no aliases (*name)")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise UserError(f"a config may be nested {_MAX_DEPTH} deep, no more")


def own_object(target: str) -> Callable[..., Any]:
    """The class or function that this project defines at `target`, or ValueError."""
    module_name, _, name = target.rpartition(".")
    parts = module_name.split(".")
    if parts[0] not in PACKAGES or not all(part.isidentifier() for part in [*parts, name]):
        raise UserError(f"must be PACKAGE.MODULE.NAME with a PACKAGE of {', '.join(PACKAGES)}")
    try:
        found = getattr(import_module(module_name), name, None)
    except ImportError as error:
        raise UserError(f"cannot be imported: {error}") from error
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise UserError("must name a class or a function")
    if f"{found.__module__}.{found.__qualname__}" != target:
        raise UserError(f"must be defined there; it is {found.__module__}.{found.__qualname__}")
    return found


def _mappings(node: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Every dict in `node` with its key path; refuses depth, interpolations and foreign types."""
    if depth > _MAX_DEPTH:
        raise UserError(f"{path[:60]}...: a config may be nested {_MAX_DEPTH} deep, no more")
    if isinstance(node, str) and "${" in node:
        raise UserError(f"{path}={node!r}: an interpolation in a resolved config is refused")
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from _mappings(value, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _mappings(value, f"{path}[{index}]", depth + 1)
    elif not (node is None or isinstance(node, str | bool | int | float)):
        raise UserError(f"{path}: {type(node).__name__} is no plain value")


def _check_keys(path: str, mapping: dict[Any, Any]) -> None:
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {key!r} must be text")
        if key == "_args_":
            raise UserError(f"{path}: _args_ is refused: name each argument")
        kind = _SPECIAL.get(key, object)
        if not isinstance(value, kind):
            raise UserError(f"{path}: {key}={value!r} must be a {kind.__name__}")


def _check_target(path: str, mapping: dict[str, Any]) -> None:
    target = mapping["_target_"]
    where = f"{path}: _target_={target!r}" if path else f"_target_={target!r}"
    try:
        found = own_object(target)
    except ValueError as error:
        raise UserError(f"{where} is refused: it {error}") from error
    if not (inspect.isclass(found) or mapping.get("_partial_")):
        raise UserError(f"{where} is refused: it is a function, which needs _partial_: true")
    arguments = {key: None for key in mapping if key not in _SPECIAL}
    try:
        inspect.signature(found).bind_partial(**arguments)
    except TypeError as error:
        valid = ", ".join(inspect.signature(found).parameters)
        raise UserError(f"{where}: {error}; it has: {valid}") from None


def _made_by_hydra(plain: Any) -> Any:
    if not isinstance(plain, dict | list):
        raise UserError(f"a config to instantiate is a mapping or a list, not {plain!r}")
    try:
        return hydra.utils.instantiate(plain, **_all_plain(plain))
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None:
            raise UserError(str(error)) from error
        if isinstance(cause, TypeError):  # an argument that is missing, or none to compute with
            raise UserError(_unfit(plain, str(error), cause)) from error
        raise cause from None  # the constructor's own error, which is complete by itself


def _unfit(plain: Any, message: str, cause: TypeError) -> str:
    """Which object could not be made, of what, and why: Hydra names its key in the message alone."""
    found = re.search(r"full_key: (\S+)", message)
    node = plain
    for key in found[1].split(".") if found else ():
        node = node.get(key, {}) if isinstance(node, dict) else {}
    target = node.get("_target_", "?") if isinstance(node, dict) else "?"
    given = [f"{k}={v!r}" for k, v in node.items() if k not in _SPECIAL and not isinstance(v, dict)]
    where = f"{found[1]}: " if found else ""
    return f"{where}{target} cannot be made of {', '.join(given) or 'nothing'}: {cause}"


def _all_plain(plain: Any) -> dict[str, str]:
    """Objects get dicts and lists, with no trace of OmegaConf in them."""
    return {} if isinstance(plain, dict) and "_convert_" in plain else {"_convert_": "all"}
