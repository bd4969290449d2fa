"""UTF-8's bytes, each a token: no table, no merges."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from common.errors import UserError
from data.tokenizers.base import END_OF_TEXT, BaseTokenizer

VOCAB_SIZE = 257


class Tokenizer(BaseTokenizer):
    """Token b is the byte b, for b = 0 ... 255; 256 is end-of-text."""

    name = "bytes"
    rule: ClassVar = {"encoding": "utf-8"}

    def __init__(self, vocab_size: int = VOCAB_SIZE) -> None:
        if vocab_size != VOCAB_SIZE:
            raise UserError(
                f"data.vocab_size={vocab_size} must be {VOCAB_SIZE} with data.tokenizer=bytes: "
                "256 bytes and end-of-text"
            )
        super().__init__(vocab_size)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8)

    def decode(self, tokens: Iterable[int]) -> str:
        end = END_OF_TEXT.encode()
        parts = (end if token == self.end_of_text else bytes([token]) for token in tokens)
        return b"".join(parts).decode(errors="replace")

    def byte_lengths(self) -> np.ndarray:
        return np.array([1] * 256 + [0])
