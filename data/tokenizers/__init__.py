"""The tokenizers, one a module: `data.tokenizer` names it, and its class is called `Tokenizer`.

A new one is a file here and its test in `tests/data/`.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from common.errors import UserError
from data.tokenizers.base import BaseTokenizer


@cache
def open_tokenizer(name: str, vocab_size: int) -> BaseTokenizer:
    """The tokenizer of that name and size; no file is read before it is asked for tokens.

    Raises:
        ValueError: there is none of that name, or it has no such size.
    """
    names = sorted({module.name for module in iter_modules(__path__)} - {"base"})
    if name not in names:
        raise UserError(f"data.tokenizer={name} must be one of {', '.join(names)}")
    return import_module(f"{__name__}.{name}").Tokenizer(vocab_size)
