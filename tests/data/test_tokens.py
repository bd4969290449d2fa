import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.manifest import MAX_BYTES, fingerprint, render_manifest
from data.tokens import SplitWriter, open_tokens

FUZZ = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def damaged(prepared, name, content):
    """What opening a copy says, where the file `name` has this content instead of its own."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "tokens"
        shutil.copytree(prepared.directory, directory)
        (directory / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} .*: remove {directory} and run") as refusal:
            open_tokens(directory)
        return str(refusal.value)


def test_what_was_written_can_be_read(prepared):
    again = open_tokens(prepared.directory)
    assert again == prepared
    for split in ("train", "val", "test"):
        tokens = again.tokens(split)
        assert tokens.dtype == np.uint16 and tokens.shape == (again.n_tokens(split),)
        assert tokens.max() == again.end_of_text == again.vocab_size - 1 == 511


def test_writing_to_the_tokens_never_reaches_the_file(prepared):
    prepared.tokens("val")[:] = 0
    open_tokens(prepared.directory)
    assert prepared.tokens("val").any()


@FUZZ
@given(data=st.data())
def test_one_altered_byte_is_noticed_and_named(prepared, data):
    path = data.draw(st.sampled_from(sorted(prepared.directory.iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    damaged(prepared, path.name, content)


@FUZZ
@given(data=st.data())
def test_missing_and_added_bytes_are_noticed_and_named(prepared, data):
    path = data.draw(st.sampled_from(sorted(prepared.directory.iterdir())))
    content = path.read_bytes()
    size = data.draw(st.integers(0, len(content) - 1))
    damaged(prepared, path.name, content[:size])
    damaged(prepared, path.name, content + content[: size + 1])


@FUZZ
@given(
    content=st.binary() | st.recursive(st.none() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_no_bytes_pass_for_a_manifest(prepared, content):
    assert "altered" in damaged(prepared, "manifest.json", content)


def test_a_nest_of_brackets_is_refused(prepared):
    damaged(prepared, "manifest.json", b"[" * 200_000)


def test_the_size_is_named_where_it_is_wrong(prepared):
    content = (prepared.directory / "train.bin").read_bytes()
    message = damaged(prepared, "train.bin", content[:-2])
    assert f"has {len(content) - 2} bytes and should have {len(content)}" in message


@pytest.mark.parametrize("name", ["train.bin", "manifest.json"])
def test_a_missing_file_is_named(prepared, name):
    (prepared.directory / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing: remove"):
        open_tokens(prepared.directory)


def test_a_split_that_is_not_there_is_named(prepared):
    with pytest.raises(
        ValueError, match="split=dev is not in these data: there are train, val, test"
    ):
        prepared.tokens("dev")


def test_a_manifest_vouches_for_itself():
    facts = {"a": [1, {"b": "ü"}]}
    content = render_manifest(facts)
    assert render_manifest(json.loads(content)) == content
    assert json.loads(content)["a"] == facts["a"]


def test_a_writer_stops_at_its_limit_and_counts_the_bytes_of_what_it_kept(tmp_path):
    lengths = SimpleNamespace(dtype=np.dtype("<u2"), byte_lengths=lambda: np.arange(10))
    with SplitWriter(tmp_path / "train.bin", lengths, max_tokens=5) as writer:
        for tokens in ([1, 2, 3], [4, 5, 6], [7]):
            writer.write(np.array(tokens))
        assert writer.full
    assert np.fromfile(tmp_path / "train.bin", dtype="<u2").tolist() == [1, 2, 3, 4, 5]
    assert writer.n_tokens == 5 and writer.n_bytes == 1 + 2 + 3 + 4 + 5


def forged(facts, draw):
    """The facts with one thing of them, at any depth, removed, doubled or made something else."""
    value = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    value |= st.sampled_from([[], {}, [1], {"a": 1}, "../train.bin", -1, 2**70, "0" * 64])
    facts = json.loads(json.dumps(facts))
    node = facts
    while True:
        key = draw(st.sampled_from(sorted(node)))
        if isinstance(node[key], dict) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        match draw(st.sampled_from(["remove", "add", "replace"])):
            case "remove":
                del node[key]
            case "add":
                node[draw(st.text(max_size=9))] = node[key]
            case "replace":
                node[key] = draw(value)
        return facts


@settings(FUZZ, max_examples=200, deadline=1000)
@given(data=st.data())
def test_a_forged_manifest_is_read_or_refused_with_its_place(prepared, data):
    path = prepared.directory / "manifest.json"
    honest = json.loads(path.read_bytes())
    facts = forged(honest, data.draw)
    if data.draw(st.booleans()) and isinstance(facts.get("recipe"), dict):
        facts["fingerprint"] = fingerprint(facts["recipe"])
    told = str(prepared.directory)
    try:
        path.write_bytes(render_manifest(facts))
        read = open_tokens(prepared.directory)
        for split in read.splits:
            assert read.tokens(split).size == read.n_tokens(split) and read.n_bytes(split) >= 0
        read.check_windows(1)
    except UserError as error:
        told = str(error)
    finally:
        path.write_bytes(render_manifest(honest))
    assert "\n" not in told and str(prepared.directory) in told


def test_a_manifest_that_lacks_its_splits_says_so(prepared):
    facts = json.loads((prepared.directory / "manifest.json").read_bytes())
    del facts["splits"]
    message = damaged(prepared, "manifest.json", render_manifest(facts))
    assert "is no manifest (splits: Field required)" in message


def test_a_manifest_that_is_a_pipe_or_endless_is_refused(prepared, tmp_path):
    damaged(prepared, "manifest.json", b" " * (MAX_BYTES + 1))
    path = prepared.directory / "manifest.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"manifest\.json is missing: remove"):
        open_tokens(prepared.directory)
