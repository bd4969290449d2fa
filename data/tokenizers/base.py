"""What a tokenizer is."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np

END_OF_TEXT = "<|endoftext|>"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type that tokens are stored in: 16 bits where they are enough, else 32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


class BaseTokenizer(ABC):
    """Text to tokens and back. The last token is end-of-text, which no text has.

    Law: encode(a + b) = encode(a) + encode(b) wherever a ends in a visible character and b begins
    with a space or a line feed. Texts are cut at such places and encoded on all cores.

    Attributes:
        name: the module's.
        rule: what, beside the size, decides the tokens of a text; equal rules, equal tokens.
        divisible: a text may end after any of its characters.
    """

    name: ClassVar[str]
    rule: ClassVar[Mapping[str, Any]]
    divisible: ClassVar[bool] = True

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.dtype = token_dtype(vocab_size)

    @property
    def end_of_text(self) -> int:
        return self.vocab_size - 1

    @property
    def identity(self) -> dict[str, Any]:
        """Name, size, and the sha256 of the rule and the size; reads no file."""
        facts = json.dumps({**self.rule, "vocab_size": self.vocab_size}, sort_keys=True)
        digest = sha256(facts.encode()).hexdigest()
        return {"name": self.name, "vocab_size": self.vocab_size, "sha256": digest}

    def as_text(self, value: Any) -> str | None:
        """A record's value as the text to encode; None where it can't be one."""
        return value if isinstance(value, str) else None

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """(n,) integers; end-of-text is never among them."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens; bytes that are no UTF-8 become U+FFFD."""

    @abstractmethod
    def byte_lengths(self) -> np.ndarray:
        """(vocab_size,) bytes of text that each token stands for; end-of-text has none."""
