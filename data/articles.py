"""From a source's records to the text of each split."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from common.errors import UserError
from data.config import DataConfig
from data.sources import Source
from data.tokenizers import open_tokenizer

# Of a split, its next text. Where end-of-text tokens are made, it is one whole article.
Piece = tuple[str, str]


@dataclass
class Corpus:
    """The texts of a source after topics and max_bytes, and how much passed by at the last reading.

    `pieces` deals them out to the splits; `n_texts` and `n_bytes` (UTF-8) then count what was read.
    """

    source: Source
    config: DataConfig
    n_texts: int = 0
    n_bytes: int = 0

    def pieces(self) -> Iterator[Piece]:
        """The texts with their splits, in the source's order. ValueError where there is no text."""
        config = self.config
        end = "" if config.end_of_text else self.source.separator
        if config.split == "articles":
            yield from by_article_hash(
                self._texts(), config.val_fraction, config.test_fraction, end, config.split_salt
            )
        else:
            # Where the cut falls is known after one reading, so this is the second.
            n_chars = sum(len(text) for text in self._texts(end))
            n_train = int(n_chars * (1 - config.val_fraction))
            yield from by_characters(self._texts(end), n_train)

    def _texts(self, end: str = "") -> Iterator[str]:
        self.n_texts = self.n_bytes = 0
        for text in read_texts(self.source, self.config, end):
            self.n_texts += 1
            self.n_bytes += len(text.encode())
            yield text
        if not self.n_texts:
            raise UserError(f"{self.source.name} has no text in field {self.config.text_field}")


def by_article_hash(
    texts: Iterable[str], val_fraction: float, test_fraction: float, end: str = "", salt: str = ""
) -> Iterator[Piece]:
    """Each article to a split by the hash of its text.

    u = first 64 bits of SHA-256(salt text) / 2^64;  u < test_fraction: test;  then val;  else train.

    So an article stays in its split whatever else is in the corpus, and doubles never stand on
    both sides: a model tuned on one topic is not validated on what it was trained on before.
    `end` is put after every text.
    """
    for text in texts:
        u = int.from_bytes(sha256((salt + text).encode()).digest()[:8], "big") / 2**64
        if u < test_fraction:
            yield "test", text + end
        elif u < test_fraction + val_fraction:
            yield "val", text + end
        else:
            yield "train", text + end


def by_characters(texts: Iterable[str], n_train: int) -> Iterator[Piece]:
    """The first `n_train` characters to train and the rest to val, through a text if need be."""
    for text in texts:
        if n_train > 0:
            yield "train", text[:n_train]
        if n_train < len(text):
            yield "val", text[max(n_train, 0) :]
        n_train -= len(text)


def first_bytes(texts: Iterable[str], max_bytes: int | None) -> Iterator[str]:
    """The texts up to so many bytes of UTF-8; the last is cut between two characters."""
    if max_bytes is None:
        yield from texts
        return
    left = max_bytes
    for text in texts:
        encoded = text.encode()
        if len(encoded) > left:
            last = encoded[:left].decode(errors="ignore")
            if last:
                yield last
            return
        yield text
        left -= len(encoded)


def read_texts(source: Source, config: DataConfig, end: str = "") -> Iterator[str]:
    """The articles of the wanted topics up to `max_bytes`, empty ones left out, `end` after each.

    Raises:
        ValueError: no such field, one that isn't text, or a topic that no record has.
    """
    topics: set[str] = set()
    rows = _rows(source, config, topics)
    articles = (
        join_rows(rows, re.compile(config.article_start).match) if config.article_start else rows
    )
    texts = (text + end for text in articles if text and not text.isspace())
    yield from first_bytes(texts, config.max_bytes)
    # Where max_bytes came first, read on: a topic is misspelt only if no record at all has it.
    wanted = set(config.topics or ())
    while not wanted <= topics and next(rows, None) is not None:
        pass
    if missing := sorted(wanted - topics):
        raise UserError(
            f"data.topics: no record has the topic {missing[0]!r} in field {config.topic_field}; "
            f"the first there are {', '.join(sorted(topics)[:20])}"
        )


def _rows(source: Source, config: DataConfig, topics: set[str]) -> Iterator[str]:
    """The text of each record of a wanted topic; `topics` is filled with all that occur."""
    as_text = open_tokenizer(config.tokenizer, config.vocab_size).as_text
    n_rows = 0
    for table in source.tables():
        texts = _column(source, table, "text_field", config.text_field, n_rows, as_text)
        if config.topics is None:
            yield from texts
        else:
            labels = _column(source, table, "topic_field", config.topic_field, n_rows, _if_text)
            topics.update(labels)
            yield from (
                text for text, topic in zip(texts, labels, strict=True) if topic in config.topics
            )
        n_rows += len(texts)


def _if_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _column(
    source: Source,
    table: Any,
    key: str,
    name: str,
    n_before: int,
    as_text: Callable[[Any], str | None],
) -> list[str]:
    if name not in table.column_names:
        raise UserError(
            f"data.{key}={name} is no field of {source.name}: there are "
            f"{', '.join(table.column_names)}"
        )
    column = table.column(name)
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.{key}={name} of {source.name} is not UTF-8, in a record after the {n_before}th: "
            f"{error}; write the file anew in UTF-8"
        ) from None
    texts = []
    for index, value in enumerate(values):
        text = as_text(value)
        if text is None:
            raise UserError(
                f"data.{key}={name} must be text, and in record {n_before + index + 1} of "
                f"{source.name} it is {'empty' if value is None else f'of type {column.type}'}"
            )
        texts.append(text)
    return texts


def join_rows(rows: Iterable[str], begins: Callable[[str], object]) -> Iterator[str]:
    """Articles made of consecutive rows; the row for which `begins` is true is the first of one."""
    article: list[str] = []
    for row in rows:
        if begins(row) and article:
            yield "".join(article)
            article = []
        article.append(row)
    yield "".join(article)
