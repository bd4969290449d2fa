"""From a source's records to the text of each split."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from common.errors import UserError
from data.config import DataConfig
from data.sources import Source

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
                self._texts(), config.val_fraction, config.test_fraction, end
            )
        else:
            # Where the cut falls is known after one reading, so this is the second.
            n_chars = sum(len(text) for text in self._texts(end))
            n_train = int(n_chars * (1 - config.val_fraction))
            yield from by_characters(self._texts(end), n_train)

    def _texts(self, end: str = "") -> Iterator[str]:
        self.n_texts = self.n_bytes = 0
        for text in first_bytes(read_texts(self.source, self.config, end), self.config.max_bytes):
            self.n_texts += 1
            self.n_bytes += len(text.encode())
            yield text
        if not self.n_texts:
            raise UserError(f"{self.source.name} has no text in field {self.config.text_field}")


def by_article_hash(
    texts: Iterable[str], val_fraction: float, test_fraction: float, end: str = ""
) -> Iterator[Piece]:
    """Each article to a split by the hash of its text.

    u = first 64 bits of SHA-256(text) / 2^64;  u < test_fraction: test;  then val;  else train.

    So an article stays in its split whatever else is in the corpus, and doubles never stand on
    both sides: a model tuned on one topic is not validated on what it was trained on before.
    `end` is put after every text.
    """
    for text in texts:
        u = int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64
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
    """The articles of the wanted topics, empty ones left out, `end` put after each.

    Raises:
        ValueError: no such field, one that isn't text, or a topic that no record has.
    """
    topics: set[str] = set()
    rows = _rows(source, config, topics)
    if config.article_start:
        rows = join_rows(rows, re.compile(config.article_start).match)
    for text in rows:
        if text and not text.isspace():
            yield text + end
    missing = sorted(set(config.topics or ()) - topics)
    if missing:
        raise UserError(
            f"data.topics: no record has the topic {missing[0]!r} in field {config.topic_field}; "
            f"the first there are {', '.join(sorted(topics)[:20])}"
        )


def _rows(source: Source, config: DataConfig, topics: set[str]) -> Iterator[str]:
    """The text of each record of a wanted topic; `topics` is filled with all that occur."""
    n_rows = 0
    for table in source.tables():
        texts = _column(source, table, config.text_field, n_rows, "text_field")
        n_rows += len(texts)
        if config.topics is None:
            yield from texts
            continue
        labels = _column(source, table, config.topic_field, n_rows - len(texts), "topic_field")
        topics.update(labels)
        yield from (
            text for text, topic in zip(texts, labels, strict=True) if topic in config.topics
        )


def _column(source: Source, table: Any, name: str, n_before: int, key: str) -> list[str]:
    if name not in table.column_names:
        raise UserError(
            f"data.{key}={name} is no field of {source.name}: there are "
            f"{', '.join(table.column_names)}"
        )
    column = table.column(name)
    values = column.to_pylist()
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise UserError(
                f"data.{key}={name} must be text, and in record {n_before + index + 1} of "
                f"{source.name} it is {'empty' if value is None else f'of type {column.type}'}"
            )
    return values


def join_rows(rows: Iterable[str], begins: Callable[[str], object]) -> Iterator[str]:
    """Articles made of consecutive rows; the row for which `begins` is true is the first of one."""
    article: list[str] = []
    for row in rows:
        if begins(row) and article:
            yield "".join(article)
            article = []
        article.append(row)
    yield "".join(article)
