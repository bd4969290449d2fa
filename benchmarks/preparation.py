"""Text to token files, beside tiktoken's own batch encoding of the same texts on the same cores.

Each runs in a process of its own: `python -m benchmarks.preparation prepare data=sample`. The time of
`prepare` holds reading, splitting, tokenising, hashing and writing; tiktoken's holds
`encode_ordinary_batch` alone, with its texts already in memory. On both sides the clock starts after
the libraries' imports and the tokenizer's tables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.contender import REPOSITORY, Spec, compose_config, memory_bytes
from benchmarks.measure import markdown


def measure(corpus: str | None = None) -> dict[str, Any]:
    """Seconds and peak memory of both; the embedded sample's 4.9 MB where no corpus is given."""
    overrides = ["data=files", f"data.paths={corpus}"] if corpus else ["data=sample"]
    ours, theirs = (_in_process(task, overrides) for task in ("prepare", "tiktoken"))
    ratio = f"{ours['time_s'] / theirs['time_s']:.2f}"
    megabytes = [f"{side['peak_bytes'] / 1e6:,.0f} MB" for side in (ours, theirs)]
    rows = [
        ["time", f"{ours['time_s']:.2f} s", f"{theirs['time_s']:.2f} s", ratio, "1.30"],
        ["peak memory", *megabytes, "", "1,000 MB"],
    ]
    header = [f"{ours['text_bytes'] / 1e6:.1f} MB of text", "prepare", "tiktoken", "ratio", "bar"]
    return {"table": markdown(header, rows), "prepare": ours, "tiktoken": theirs}


def _in_process(task: str, overrides: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.preparation", task, *overrides]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(task: str, overrides: list[str]) -> dict[str, Any]:
    """Do one of the two here."""
    common = ("data.max_train_tokens=null", "data.vocab_size=50257")
    cfg = compose_config(Spec("ours", (*overrides, *common))).data
    facts = prepare_corpus(cfg) if task == "prepare" else encode_corpus(cfg)
    return facts | {"peak_bytes": memory_bytes("cpu", peak=True)}


def prepare_corpus(cfg: Any) -> dict[str, Any]:
    """This repository's preparation, from nothing into a new directory."""
    import datasets  # noqa: F401  (reading imports it late)

    from data.prepare import prepare
    from data.tokenizers import open_tokenizer

    open_tokenizer("gpt2", cfg.vocab_size).byte_lengths()
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        data = prepare({**cfg, "cache_dir": directory}, block_size=1)
        seconds = time.perf_counter() - start
        return {"time_s": seconds, "text_bytes": data.manifest.bytes}


def encode_corpus(cfg: Any) -> dict[str, Any]:
    """tiktoken's batch encoding of the whole corpus at once."""
    from data.articles import read_texts
    from data.config import DataConfig
    from data.sources import open_source
    from data.tokenizers.gpt2 import Tokenizer

    config = DataConfig.from_mapping(cfg)
    texts = list(read_texts(open_source(config), config))
    encoding = Tokenizer(config.vocab_size).encoding
    start = time.perf_counter()
    encoding.encode_ordinary_batch(texts, num_threads=len(os.sched_getaffinity(0)))
    seconds = time.perf_counter() - start
    return {"time_s": seconds, "text_bytes": sum(len(text.encode()) for text in texts)}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2:])))
