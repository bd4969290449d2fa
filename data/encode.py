"""Texts to tokens on all cores, in order, with memory that does not grow with the corpus."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from data.tokenizers.base import BaseTokenizer

BLOCK_CHARS = 1 << 16
JOB_CHARS = 1 << 18
# The law of a tokenizer: text that is cut here has the same tokens as the whole. GPT-2's pattern
# never matches across the place between a visible character and a blank, and looks behind nowhere.
_CUT_BEFORE = re.compile(r".*\S(?=[ \n])", re.DOTALL)
_CUT_AFTER = re.compile(r"\S(?=[ \n])")


class Block(NamedTuple):
    """Some text of a split; `ends` where an end-of-text token comes after it."""

    split: str
    text: str
    ends: bool


def blocks(pieces: Iterable[tuple[str, str]], end_of_text: bool) -> Iterator[Block]:
    """The pieces of each split, cut to blocks of about BLOCK_CHARS characters.

    With `end_of_text` a piece is an article and its last block says so; without, the pieces of a
    split are one text, and their seams are as invisible to the tokens as the cuts.
    """
    held: dict[str, list[str]] = {}
    n_held: dict[str, int] = {}
    for split, text in pieces:
        held.setdefault(split, []).append(text)
        n_held[split] = n_held.get(split, 0) + len(text)
        if not end_of_text and n_held[split] <= BLOCK_CHARS:
            continue
        *whole, rest = cut_text("".join(held[split]))
        yield from (Block(split, part, ends=False) for part in whole)
        if end_of_text:
            yield Block(split, rest, ends=True)
        held[split] = [] if end_of_text else [rest]
        n_held[split] = 0 if end_of_text else len(rest)
    for split, parts in held.items():
        if parts:
            yield Block(split, "".join(parts), ends=False)


def cut_text(text: str, size: int = BLOCK_CHARS) -> list[str]:
    """The text in parts of at most `size` characters, the last one perhaps of more.

    Cut only where the parts have the tokens of the whole; text without a blank stays in one part.
    """
    parts = []
    start = 0
    while len(text) - start > size:
        place = _CUT_BEFORE.match(text, start, start + size) or _CUT_AFTER.search(
            text, start + size - 1
        )
        if place is None:
            break
        parts.append(text[start : place.end()])
        start = place.end()
    return [*parts, text[start:]]


def encode_blocks(
    source: Iterable[Block], tokenizer: BaseTokenizer, num_proc: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(split, tokens) of each block in turn; tokens (n,) of the tokenizer's type.

    Threads, because tiktoken works outside Python's lock and hands its tokens over as one buffer.
    Only a few jobs for each thread are read ahead.
    """

    def encode(job: list[Block]) -> list[tuple[str, np.ndarray]]:
        return [(block.split, encode_block(block, tokenizer)) for block in job]

    pending: deque[Future[list[tuple[str, np.ndarray]]]] = deque()
    with ThreadPoolExecutor(num_proc, thread_name_prefix="tokenise") as pool:
        try:
            for job in _jobs(source):
                pending.append(pool.submit(encode, job))
                if len(pending) > 3 * num_proc:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def encode_block(block: Block, tokenizer: BaseTokenizer) -> np.ndarray:
    """The tokens of one block, (n,), and end-of-text where it ends a document."""
    tokens = tokenizer.encode(block.text)
    if block.ends:
        tokens = np.append(tokens, tokenizer.end_of_text)
    return tokens.astype(tokenizer.dtype)


def _jobs(source: Iterable[Block]) -> Iterator[list[Block]]:
    """Lists of blocks, each worth a thread's while."""
    job: list[Block] = []
    n_chars = 0
    for block in source:
        job.append(block)
        n_chars += len(block.text)
        if n_chars >= JOB_CHARS:
            yield job
            job, n_chars = [], 0
    if job:
        yield job
