"""The hub's path by the real `datasets`, from a stand-in of the hub on the loopback."""

import json
import re
import time

import numpy as np
import pytest

from data import progress
from data.articles import Corpus
from data.config import DataConfig
from data.prepare import prepare
from data.progress import TokenProgress
from data.sources import open_source
from tests.data.hub import Hub, as_a_person


def as_files(cfg, texts, path):
    """The config of the same texts in a file of one's own."""
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    keys = ("source", "repo", "subset", "revision", "hub_split", "article_start")
    rest = {key: value for key, value in cfg.items() if key not in keys}
    return rest | {"source": "files", "paths": [str(path)]}


def assert_equal(one, other):
    assert one.manifest.splits == other.manifest.splits
    for split in one.splits:
        assert np.array_equal(one.tokens(split), other.tokens(split))


PUBLISHED = {"split": "characters", "test_fraction": 0.0, "end_of_text": False}


@pytest.mark.parametrize("cut", [{}, PUBLISHED], ids=["articles", "characters"])
def test_the_tokens_are_those_of_the_same_text_in_files(hub, hub_cfg, records, tmp_path, cut):
    from_hub = prepare(hub_cfg | cut, block_size=8)
    whole = [record["text"] for record in records]
    assert_equal(from_hub, prepare(as_files(hub_cfg | cut, whole, tmp_path / "a.jsonl"), 8))
    assert from_hub.manifest.texts == len(records)


def test_the_shipped_wikipedia_is_read(hub, records, tmp_path, tiny_cfg):
    cfg = tiny_cfg("data=wikipedia", f"data.cache_dir={tmp_path / 'cache'}", "data.num_proc=1").data
    hub.add([records[:200], records[200:]], cfg.repo, cfg.subset, cfg.revision)
    whole = [record["text"] for record in records]
    assert_equal(prepare(cfg, 8), prepare(as_files(cfg, whole, tmp_path / "a.jsonl"), 8))


def test_the_shipped_wikitext_is_read_though_its_rows_are_lines(hub, records, tmp_path, tiny_cfg):
    cfg = tiny_cfg("data=wikitext103", f"data.cache_dir={tmp_path / 'cache'}", "data.num_proc=1")
    cfg = cfg.data
    articles = [
        ["", f" = Title {n} = \n", "", f" {record['text'][:99]} \n", " = = Part = = \n", ""]
        for n, record in enumerate(records)
    ]
    rows = [{"text": row} for article in articles for row in article]
    hub.add([rows[:1000], rows[1000:]], cfg.repo, cfg.subset, cfg.revision)
    # The empty rows before a title belong to the article before it.
    whole = ["".join(article) for article in articles]
    data = prepare(cfg, 8)
    assert_equal(data, prepare(as_files(cfg, whole, tmp_path / "a.jsonl"), 8))
    assert data.manifest.texts == len(records)


def test_max_bytes_ends_the_download(hub, hub_cfg, records):
    n_bytes = sum(len(record["text"].encode()) for record in records[:310])
    data = prepare(hub_cfg | {"max_bytes": n_bytes}, block_size=8)
    assert data.manifest.bytes == n_bytes
    time.sleep(0.2)  # for what a thread might ask still
    first, second = list(hub.files["some/texts"].values())[1:3]
    assert len(first) < hub.shard_bytes < 2 * (len(first) + len(second))  # their ends come twice
    assert hub.asked("train-00001") and not hub.asked("train-00002")


def test_a_renamed_dataset_is_followed(hub, hub_cfg, records):
    hub.renamed["old/texts"] = "some/texts"
    assert prepare(hub_cfg | {"repo": "old/texts"}, 8).manifest.texts == len(records)


def test_a_folder_of_the_datasets_name_is_not_taken(hub, hub_cfg, records, tmp_path, monkeypatch):
    (tmp_path / "some" / "texts").mkdir(parents=True)
    (tmp_path / "some" / "texts" / "train.jsonl").write_text('{"text": "Not this."}')
    monkeypatch.chdir(tmp_path)
    assert prepare(hub_cfg, block_size=8).manifest.texts == len(records)


def test_a_prepared_dataset_needs_no_hub(hub, hub_cfg):
    data = prepare(hub_cfg, block_size=8)
    n_requests = len(hub.requests)
    assert prepare(hub_cfg, block_size=8).fingerprint == data.fingerprint
    assert len(hub.requests) == n_requests


def test_the_time_left_is_shown_by_the_size_that_the_card_says(hub, hub_cfg, records):
    n_bytes = sum(len(record["text"].encode()) for record in records)
    config = DataConfig.from_mapping(hub_cfg)
    corpus = Corpus(open_source(config), config)
    assert corpus.source.n_bytes() is None
    assert sum(len(text.encode()) for _, text in corpus.pieces()) == n_bytes
    assert corpus.source.n_bytes() == n_bytes


def test_a_log_has_a_line_about_it_now_and_then(hub, hub_cfg, capfd, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    config = DataConfig.from_mapping(hub_cfg | PUBLISHED | {"max_bytes": 4000})
    corpus = Corpus(open_source(config), config)
    with TokenProgress(corpus) as bar:
        for n_bytes in (1000, 3000, 1500, 2500):
            corpus.n_bytes = n_bytes
            time.sleep(0.2)
        bar.add(77)
    lines = capfd.readouterr().err.splitlines()
    assert any("counting texts" in line and "3.0/4.0 kB 0 tokens" in line for line in lines)
    assert any(re.search(r"2\.5/4\.0 kB 0 tokens \S+ < 0:00:0[1-9]$", line) for line in lines)
    assert "tokenising texts" in lines[-1] and "2.5/2.5 kB 77 tokens" in lines[-1]


@pytest.mark.slow
def test_a_person_trains_on_wikitext(records, tmp_path):
    cfg = "Salesforce/wikitext", "wikitext-103-raw-v1", "b08601e04326c79dfdd32d625aee71d232d685c3"
    rows = [{"text": row} for r in records for row in (" = Title = \n", f" {r['text']} \n")]
    with Hub() as hub:
        hub.add([rows[:900], rows[900:]], *cfg)
        process = as_a_person(hub, tmp_path, "data=wikitext103")
        output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert "tokenising wikitext" in output and "step 2: train" in output
    assert "http" not in output.replace("https://", "").lower()
