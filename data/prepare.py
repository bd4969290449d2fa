"""Text to token files, once for each choice of data: `prepare(cfg.data, block_size)`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import whole_or_absent
from common.locks import sole_builder
from data.articles import Corpus
from data.config import DataConfig
from data.encode import blocks, encode_blocks
from data.manifest import MANIFEST, fingerprint, render_manifest
from data.progress import TokenProgress
from data.sources import Source, open_source
from data.tokenizers import open_tokenizer
from data.tokens import SplitWriter, TokenData, check_windows, open_tokens

__all__ = ["TokenData", "prepare"]

REPOSITORY = Path(__file__).resolve().parents[1]
FORMAT = 3  # raise it when the same config comes to give other tokens


def prepare(cfg: Mapping[str, Any], block_size: int) -> TokenData:
    """The tokens that the `data` group asks for: from the cache, or made now.

    Every byte is checked on the way, from the cache too. Two processes that want the same tokens
    make them once: the second waits. What fails or is interrupted leaves nothing behind.

    Args:
        cfg: the fields of `DataConfig`.
        block_size: each split must hold at least one window of this many tokens.

    Raises:
        ValueError: a config, source, text or token file is not as it must be; see `DataConfig`,
            `open_source`, `read_texts`, `open_tokens`; or the disk gave out.
    """
    config = DataConfig.from_mapping(cfg)
    source = open_source(config)
    recipe = _recipe(config, source)
    key = fingerprint(recipe)
    directory = REPOSITORY / Path(config.cache_dir).expanduser() / f"{config.source}-{key[:16]}"
    try:
        if not directory.exists():
            with sole_builder(directory):
                if not directory.exists():
                    _build(directory, config, source, recipe, block_size)
        data = open_tokens(directory)
    except OSError as error:
        raise UserError(
            f"data.cache_dir={config.cache_dir} can't be used: {error}; make room there, change "
            "its owner, or choose another directory"
        ) from error
    if data.fingerprint != key:
        raise UserError(f"{directory} holds other tokens than its name says: remove it")
    data.check_windows(block_size)
    return data


def _recipe(config: DataConfig, source: Source) -> dict[str, Any]:
    """All that decides the tokens. Not where they lie, nor on how many cores they were made."""
    text = ("text_field", "topics", "article_start", "max_bytes")
    split = ("split", "val_fraction", "test_fraction", "end_of_text", "max_train_tokens")
    options = asdict(config)
    return {
        "format": FORMAT,
        "source": source.identity,
        **{key: options[key] for key in (*text, *split)},
        "topic_field": config.topic_field if config.topics else None,
        "split_salt": config.split_salt if config.split == "articles" else "",
        "tokenizer": open_tokenizer(config.tokenizer, config.vocab_size).identity,
    }


def _build(
    directory: Path, config: DataConfig, source: Source, recipe: dict[str, Any], block_size: int
) -> None:
    """Read, split, tokenise and write; `directory` is there in the end, or an error."""
    corpus = Corpus(source, config)
    with whole_or_absent(directory) as staging:
        splits = _write_splits(staging, corpus)
        if open_source(config).identity != source.identity:
            raise UserError(f"{source.name} was changed while it was read: run again")
        for split, facts in splits.items():
            check_windows(split, facts["tokens"], block_size)
        manifest = {
            "fingerprint": fingerprint(recipe),
            "recipe": recipe,
            "texts": corpus.n_texts,
            "bytes": corpus.n_bytes,
            "splits": splits,
            "versions": {name: version(name) for name in ("datasets", "tiktoken")},
        }
        (staging / MANIFEST).write_bytes(render_manifest(manifest))


def _write_splits(staging: Path, corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Write the token file of each split; what the manifest says of each."""
    config = corpus.config
    tokenizer = open_tokenizer(config.tokenizer, config.vocab_size)
    num_proc = config.num_proc or len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        writers = {}
        for split in config.splits:
            max_tokens = config.max_train_tokens if split == "train" else None
            writer = SplitWriter(staging / f"{split}.bin", tokenizer, max_tokens)
            writers[split] = stack.enter_context(writer)
        progress = stack.enter_context(TokenProgress(corpus))
        wanted = blocks(_wanted(corpus.pieces(), writers), config.end_of_text)
        for split, tokens in encode_blocks(wanted, tokenizer, num_proc):
            writers[split].write(tokens)
            progress.add(tokens.size)
    return {split: writer.facts() for split, writer in writers.items()}


def _wanted(
    pieces: Iterator[tuple[str, str]], writers: dict[str, SplitWriter]
) -> Iterator[tuple[str, str]]:
    """The pieces, all noted, without those of a split that has enough: they need no tokenising."""
    for split, text in pieces:
        writers[split].note(text)
        if not writers[split].full:
            yield split, text
