import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.manifest import read_manifest, render_manifest
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
    byte_lengths = np.arange(10)
    with SplitWriter(tmp_path / "train.bin", byte_lengths, max_tokens=5) as writer:
        for tokens in ([1, 2, 3], [4, 5, 6], [7]):
            writer.write(np.array(tokens, dtype="<u2"))
        assert writer.full
    assert np.fromfile(tmp_path / "train.bin", dtype="<u2").tolist() == [1, 2, 3, 4, 5]
    assert writer.n_tokens == 5 and writer.n_bytes == 1 + 2 + 3 + 4 + 5
