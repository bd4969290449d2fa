"""Token files: written once, and checked byte for byte at every opening."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from common.errors import UserError
from common.files import sha256_of
from data.manifest import MANIFEST, Manifest, SplitFacts, read_manifest
from data.tokenizers.base import BaseTokenizer, token_dtype


@dataclass(frozen=True)
class TokenData:
    """Prepared text: a directory with one file of tokens for each split.

    Attributes:
        directory: where the files lie.
        manifest: what they are: source, counts, tokenizer, sha256 of each file.
    """

    directory: Path
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the tokens; the same on every machine."""
        return self.manifest.fingerprint

    @property
    def vocab_size(self) -> int:
        return self.manifest.recipe.tokenizer.vocab_size

    @property
    def end_of_text(self) -> int | None:
        """The token that ends every document; None where nothing stands between them."""
        return self.vocab_size - 1 if self.manifest.recipe.end_of_text else None

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.manifest.splits)

    def tokens(self, split: str) -> np.ndarray:
        """(n_tokens,) uint16, or uint32 where the vocabulary needs it, mapped from disk.

        What is written to it never reaches the file.
        """
        path = self.directory / self._facts(split).file
        # Copy on write rather than read-only: torch warns of arrays it might not write to.
        return np.memmap(path, dtype=token_dtype(self.vocab_size), mode="c")

    def n_tokens(self, split: str) -> int:
        return self._facts(split).tokens

    def n_bytes(self, split: str) -> int:
        """Bytes of UTF-8 that the split's tokens stand for; end-of-text stands for none."""
        return self._facts(split).bytes

    def _facts(self, split: str) -> SplitFacts:
        if split not in self.manifest.splits:
            raise UserError(
                f"split={split} is not in these data: there are {', '.join(self.splits)}; a "
                "character cut (data/cut=published) has no test, data.split=articles does"
            )
        return self.manifest.splits[split]

    def check_windows(self, block_size: int) -> None:
        """A ValueError where a split is shorter than one window and its last target."""
        for split in self.splits:
            check_windows(split, self.n_tokens(split), block_size)


def check_windows(split: str, n_tokens: int, block_size: int) -> None:
    if n_tokens < block_size + 1:
        raise UserError(
            f"split {split} has {n_tokens} tokens and one window needs "
            f"block_size + 1 = {block_size + 1}: use more text (data.max_bytes, "
            f"data.max_train_tokens), a larger data.{split}_fraction or a smaller "
            "model.block_size"
        )


class SplitWriter:
    """Appends tokens to the file of one split, and counts and hashes them and their texts."""

    def __init__(self, path: Path, tokenizer: BaseTokenizer, max_tokens: int | None = None):
        self.max_tokens = max_tokens
        self.n_tokens = self.n_bytes = self.n_texts = 0
        self._dtype = tokenizer.dtype
        self._byte_lengths = tokenizer.byte_lengths()
        self._sha256, self._text_sha256 = sha256(), sha256()
        self._path = path

    def __enter__(self) -> Self:
        self._file = self._path.open("xb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def full(self) -> bool:
        return self.max_tokens is not None and self.n_tokens >= self.max_tokens

    def note(self, text: str) -> None:
        """Count and hash one more text of the split."""
        content = text.encode()
        self._text_sha256.update(len(content).to_bytes(8, "little") + content)
        self.n_texts += 1

    def write(self, tokens: np.ndarray) -> None:
        """Append (n,) tokens, those beyond `max_tokens` left out."""
        if self.max_tokens is not None:
            tokens = tokens[: self.max_tokens - self.n_tokens]
        content = tokens.astype(self._dtype).tobytes()
        self._file.write(content)
        self._sha256.update(content)
        self.n_tokens += tokens.size
        self.n_bytes += int(self._byte_lengths[tokens].sum())

    def facts(self) -> dict[str, Any]:
        """`SplitFacts`, as JSON has them."""
        return {
            "file": self._path.name,
            "tokens": self.n_tokens,
            "bytes": self.n_bytes,
            "sha256": self._sha256.hexdigest(),
            "texts": self.n_texts,
            "text_sha256": self._text_sha256.hexdigest(),
        }


def open_tokens(directory: Path) -> TokenData:
    """The token data in a directory, every byte checked (about a second for each GB).

    Raises:
        ValueError: a file is missing, cut off or altered; it names the file and what to do.
    """
    remedy = f"remove {directory} and run again, the tokens are then made anew"
    data = TokenData(directory, read_manifest(directory / MANIFEST, remedy))
    for facts in data.manifest.splits.values():
        path = directory / facts.file
        expected = token_dtype(data.vocab_size).itemsize * facts.tokens
        if not path.is_file():
            raise UserError(f"{path} is missing: {remedy}")
        if path.stat().st_size != expected:
            raise UserError(
                f"{path} has {path.stat().st_size} bytes and should have {expected}: {remedy}"
            )
        if sha256_of(path) != facts.sha256:
            raise UserError(f"{path} was altered, its sha256 is not the manifest's: {remedy}")
    return data
