import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data import prepare as preparation
from data.articles import by_article_hash
from data.prepare import REPOSITORY, prepare
from data.tokenizers.gpt2 import Tokenizer

PROGRAM = """
import json, sys
from data.prepare import prepare
try:
    print(prepare(json.loads(sys.argv[1]), block_size=8).fingerprint)
except ValueError as error:
    sys.exit(f"error: {error}")
"""


def start(cfg, limit=""):
    """`prepare` in a process of its own, under a limit of the shell where one is given."""
    command = f"{limit} exec {sys.executable} -c '{PROGRAM}' '{json.dumps(cfg)}'"
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        env=os.environ | {"USE_TORCH": "0"},  # or `datasets` imports it, for nothing
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_in(cfg):
    cache = Path(cfg["cache_dir"])
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


def test_each_article_is_in_one_split_and_ends_with_end_of_text(prepared, articles):
    tokenizer = Tokenizer(512)
    texts = []
    for split in prepared.splits:
        tokens = prepared.tokens(split)
        ends = np.flatnonzero(tokens == prepared.end_of_text)
        assert ends[-1] == tokens.size - 1
        texts += [tokenizer.decode(part[part < 511]) for part in np.split(tokens, ends)[:-1]]
    assert sorted(texts) == sorted(record["text"] for record in articles)


def test_bytes_are_those_of_the_texts(prepared, articles):
    n_bytes = sum(len(record["text"].encode()) for record in articles)
    assert sum(prepared.n_bytes(split) for split in prepared.splits) == n_bytes
    assert prepared.manifest.bytes == n_bytes
    assert prepared.manifest.texts == len(articles)


def test_the_published_cut_encodes_nine_tenths_and_the_rest(corpus, articles):
    cut = {"split": "characters", "val_fraction": 0.1, "test_fraction": 0.0, "end_of_text": False}
    data = prepare(corpus | cut, block_size=8)
    whole = "".join(record["text"] + "\n\n" for record in articles)
    n_train = int(0.9 * len(whole))
    tokenizer = Tokenizer(512)
    assert data.tokens("train").tolist() == tokenizer.encode(whole[:n_train]).tolist()
    assert data.tokens("val").tolist() == tokenizer.encode(whole[n_train:]).tolist()
    with pytest.raises(ValueError, match=r"split=test is not in these data.* has no test"):
        data.tokens("test")


def test_max_bytes_cuts_the_text(corpus):
    data = prepare(corpus | {"max_bytes": 1001}, block_size=8)
    assert data.manifest.bytes == 1001
    assert sum(data.n_bytes(split) for split in data.splits) == 1001


def test_max_train_tokens_cuts_training_tokens_alone(corpus, prepared):
    data = prepare(corpus | {"max_train_tokens": 300}, block_size=8)
    assert data.tokens("train").tolist() == prepared.tokens("train")[:300].tolist()
    for split in ("val", "test"):
        assert data.tokens(split).tolist() == prepared.tokens(split).tolist()
    kept = data.tokens("train")
    text = Tokenizer(512).encoding.decode_bytes(kept[kept < 511].tolist())
    assert data.n_bytes("train") == len(text)


def test_a_full_split_is_not_tokenised_any_further():
    noted = []
    writers = {s: SimpleNamespace(full=False, note=noted.append) for s in ("train", "val")}
    pieces = preparation._wanted(iter([("train", "a"), ("train", "b"), ("val", "c")]), writers)
    assert next(pieces) == ("train", "a")
    writers["train"].full = True
    assert list(pieces) == [("val", "c")]
    assert noted == ["a", "b", "c"]


def test_a_second_call_reads_the_cache(corpus, prepared, monkeypatch):
    monkeypatch.setattr(preparation, "_build", None)
    assert prepare(corpus, block_size=8) == prepared


def test_the_fingerprint_follows_what_decides_the_tokens(corpus, prepared, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = elsewhere / "articles.jsonl"
    copy.write_bytes(Path(corpus["paths"][0]).read_bytes())
    same = {"paths": str(copy), "cache_dir": str(elsewhere), "num_proc": 1}
    assert prepare(corpus | same, block_size=8).fingerprint == prepared.fingerprint

    with copy.open("a") as file:
        file.write('\n{"text": "One more.", "topic": "A"}')
    others = [same, {"vocab_size": 400}, {"topics": ["A"]}, {"article_start": "Art"}]
    others += [{"split_salt": "a"}, {"tokenizer": "bytes", "vocab_size": 257}]
    fingerprints = {prepare(corpus | other, block_size=8).fingerprint for other in others}
    assert len(fingerprints | {prepared.fingerprint}) == 7


def test_the_manifest_has_the_hash_of_the_text_as_it_was_tokenised(corpus, prepared, articles):
    other = {"max_train_tokens": 300, "num_proc": 1, "vocab_size": 400}
    splits = [prepare(corpus | values, block_size=8).manifest.splits for values in ({}, other)]
    pieces = list(by_article_hash([a["text"] for a in articles], 0.1, 0.1))
    for name in ("train", "val", "test"):
        texts = [text.encode() for split, text in pieces if split == name]
        stream = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
        for facts in (split[name] for split in splits):
            assert facts.texts == len(texts)
            assert facts.text_sha256 == sha256(stream).hexdigest()


def test_a_file_that_changes_while_it_is_read_is_refused(corpus, monkeypatch):
    path = Path(corpus["paths"][0])
    write_splits = preparation._write_splits

    def change(*args):
        path.write_text(path.read_text() + "\n")
        return write_splits(*args)

    monkeypatch.setattr(preparation, "_write_splits", change)
    with pytest.raises(ValueError, match="was changed while it was read: run again"):
        prepare(corpus, block_size=8)
    assert left_in(corpus) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_bytes": 200}, "split .* has .* tokens and one window needs block_size \\+ 1 = 9"),
        ({"max_train_tokens": 8}, "split train has 8 tokens"),
        ({"text_field": "body"}, r"data\.text_field=body is no field"),
        ({"vocab_size": 65536}, r"data\.vocab_size=65536 must be in \[257, 50257\]"),
        ({"source": "web"}, r"data\.source=web must be one of sample, hub, files"),
    ],
)
def test_an_error_leaves_nothing_behind(corpus, values, message):
    with pytest.raises(ValueError, match=message):
        prepare(corpus | values, block_size=8)
    assert not Path(corpus["cache_dir"]).exists() or left_in(corpus) == []


def test_an_empty_corpus_is_refused(corpus):
    Path(corpus["paths"][0]).write_text('{"text": " "}\n{"text": ""}')
    with pytest.raises(ValueError, match="has no text in field text"):
        prepare(corpus, block_size=8)
    assert left_in(corpus) == []


def test_a_longer_window_is_refused_from_the_cache_too(corpus, prepared):
    with pytest.raises(ValueError, match=r"smaller model\.block_size"):
        prepare(corpus, block_size=prepared.n_tokens("val"))


def test_tokens_under_another_name_are_refused(corpus, prepared):
    other = prepare(corpus | {"vocab_size": 400}, block_size=8)
    for path in other.directory.iterdir():
        path.replace(prepared.directory / path.name)
    with pytest.raises(ValueError, match="holds other tokens than its name says: remove it"):
        prepare(corpus, block_size=8)


def test_two_processes_make_the_tokens_once(corpus):
    first, second = start(corpus), start(corpus)
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert outputs[0][0] == outputs[1][0] != ""
    assert len(left_in(corpus)) == 1
    assert sum("tokenising" in stderr for _, stderr in outputs) == 1


def test_a_killed_preparation_is_made_anew(corpus, articles):
    with Path(corpus["paths"][0]).open("a") as file:
        for n in range(20_000):
            file.write("\n" + json.dumps({"text": f"{n} " * 40}))
    process = start(corpus)
    while not list(Path(corpus["cache_dir"]).glob("*.partial/train.bin")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert left_in(corpus)[0].endswith(".partial")
    data = prepare(corpus, block_size=8)
    assert left_in(corpus) == [data.directory.name]


def test_a_disk_that_gives_out_is_named_and_nothing_is_left(corpus):
    stderr = start(corpus, limit="ulimit -f 1;").communicate(timeout=60)[1]
    assert f"error: data.cache_dir={corpus['cache_dir']} can't be used:" in stderr
    assert "File too large" in stderr
    assert left_in(corpus) == []


def test_a_cache_that_cannot_be_made_is_named(corpus, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"data\.cache_dir=.*file/cache can't be used"):
        prepare(corpus | {"cache_dir": str(tmp_path / "file" / "cache")}, block_size=8)


def test_a_warm_start_imports_nothing_heavy(corpus, prepared):
    check = "import sys; print(sorted({'torch', 'datasets', 'tiktoken', 'rich'} & {*sys.modules}))"
    command = [sys.executable, "-c", PROGRAM + check, json.dumps(corpus)]
    output = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert output.stdout.split("\n", 1) == [prepared.fingerprint, "[]\n"]


@pytest.mark.parametrize(
    ("salt", "texts"),
    [
        ("", {"train": 8028, "val": 1021, "test": 984}),
        ("2026-11", {"train": 8071, "val": 1003, "test": 959}),
    ],
)
def test_the_sample_has_the_known_bytes_and_tokens(tmp_path, salt, texts):
    sample = {"source": "sample", "text_field": "extract", "cache_dir": str(tmp_path)}
    data = prepare(sample | {"vocab_size": 1024, "split_salt": salt}, block_size=64)
    assert {split: facts.texts for split, facts in data.manifest.splits.items()} == texts
    assert data.manifest.texts == 10_033
    assert sum(map(data.n_bytes, data.splits)) == 4_885_535
    assert sum(map(data.n_tokens, data.splits)) == 1_999_017 + 10_033
