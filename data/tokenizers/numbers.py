"""Records that are tokens already: lists of whole numbers, of pixels for example."""

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from common.errors import UserError
from data.tokenizers.base import BaseTokenizer


class Tokenizer(BaseTokenizer):
    """Token n is the number n, for n = 0 ... vocab_size - 2; the last token is end-of-text.

    A record's value is a list of numbers, or a text of them with blanks between. Each number counts
    as one byte, so that "bits per byte" are bits per number.
    """

    name = "numbers"
    rule: ClassVar = {"encoding": "numbers"}
    divisible = False  # 12 would become 1

    def __init__(self, vocab_size: int) -> None:
        if not 2 <= vocab_size <= 2**31:
            raise UserError(
                f"data.vocab_size={vocab_size} must be in [2, {2**31}] with data.tokenizer=numbers: "
                "how many different numbers there are, and end-of-text"
            )
        super().__init__(vocab_size)

    def as_text(self, value: Any) -> str | None:
        if isinstance(value, list) and all(type(number) is int for number in value):
            return " ".join(map(str, value))
        return super().as_text(value)

    def encode(self, text: str) -> np.ndarray:
        tokens = []
        for word in text.split():
            if not (word.isascii() and word.isdigit() and int(word) < self.end_of_text):
                raise UserError(
                    f"data.tokenizer=numbers takes whole numbers from 0 to {self.end_of_text - 1}, "
                    f"and a record has {word[:40]}: give the largest number + 2 as data.vocab_size"
                )
            tokens.append(int(word))
        return np.array(tokens, dtype=self.dtype)

    def decode(self, tokens: Iterable[int]) -> str:
        return " ".join(map(str, tokens))

    def byte_lengths(self) -> np.ndarray:
        lengths = np.ones(self.vocab_size, dtype=np.int64)
        lengths[self.end_of_text] = 0
        return lengths
