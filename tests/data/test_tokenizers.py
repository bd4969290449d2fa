"""What holds of every tokenizer; what is one's own stands in its own file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.prepare import prepare
from data.tokenizers import open_tokenizer
from data.tokenizers.base import token_dtype
from data.tokenizers.numbers import Tokenizer as Numbers

TEXTS = st.text(max_size=40)
NUMBERS = st.lists(st.integers(0, 98), max_size=20).map(lambda some: " ".join(map(str, some)))
TOKENIZERS = [
    ("gpt2", 257, TEXTS),
    ("gpt2", 1024, TEXTS),
    ("gpt2", 50257, TEXTS),
    ("bytes", 257, TEXTS),
    ("numbers", 100, NUMBERS),
]
each = pytest.mark.parametrize(("name", "vocab_size", "texts"), TOKENIZERS)


@each
@settings(deadline=None)
@given(data=st.data())
def test_text_comes_back_and_its_bytes_are_counted(name, vocab_size, texts, data):
    tokenizer, text = open_tokenizer(name, vocab_size), data.draw(texts)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens.tolist()) == text
    assert all(0 <= token < tokenizer.end_of_text for token in tokens.tolist())
    n_bytes = tokenizer.byte_lengths()[tokens].sum()
    assert n_bytes == (len(text.split()) if name == "numbers" else len(text.encode()))


@each
@settings(deadline=None)
@given(data=st.data())
def test_the_law_of_cuts(name, vocab_size, texts, data):
    encode = open_tokenizer(name, vocab_size).encode
    a, b = data.draw(texts) + "1", data.draw(st.sampled_from(" \n")) + data.draw(texts)
    if name == "numbers":
        a = data.draw(texts)
    assert encode(a + b).tolist() == [*encode(a).tolist(), *encode(b).tolist()]


@each
def test_the_last_token_is_end_of_text_and_has_no_bytes(name, vocab_size, texts):
    tokenizer = open_tokenizer(name, vocab_size)
    lengths = tokenizer.byte_lengths()
    assert tokenizer.end_of_text == vocab_size - 1 and tokenizer.dtype == np.uint16
    assert lengths.shape == (vocab_size,)
    assert lengths[-1] == 0 and (lengths[:-1] > 0).all()


def test_identities_differ_and_name_their_tokenizers():
    identities = [open_tokenizer(name, size).identity for name, size, _ in TOKENIZERS]
    assert len({identity["sha256"] for identity in identities}) == len(TOKENIZERS)
    assert [(i["name"], i["vocab_size"]) for i in identities] == [t[:2] for t in TOKENIZERS]


def test_tokens_are_as_wide_as_they_must_be():
    assert token_dtype(2**16) == np.uint16
    assert token_dtype(2**16 + 1) == np.uint32


@pytest.mark.parametrize("name", ["bert", "base", "../gpt2", ""])
def test_only_tokenizers_are_opened(name):
    with pytest.raises(ValueError, match=f"data.tokenizer={name} must be one of bytes, gpt2"):
        open_tokenizer(name, 257)


@pytest.mark.parametrize(("name", "vocab_size"), [("bytes", 256), ("bytes", 1024), ("numbers", 1)])
def test_sizes_that_do_not_exist_are_refused(name, vocab_size):
    with pytest.raises(ValueError, match=rf"data\.vocab_size={vocab_size} must be"):
        open_tokenizer(name, vocab_size)


@pytest.mark.parametrize("text", ["1 99", "-1", "1.5", "a", "1_0", "²", "9" * 30])
def test_what_is_no_token_is_named(text):
    with pytest.raises(ValueError, match="takes whole numbers from 0 to 98, and a record has"):
        Numbers(100).encode(text)


def test_numbers_are_lists_or_texts_of_them():
    tokenizer = Numbers(100)
    assert tokenizer.as_text([3, 0, 17]) == "3 0 17" == tokenizer.as_text("3 0 17")
    for value in ([1.5], [True], ["1"], 3, None, {"a": 1}):
        assert tokenizer.as_text(value) is None


@pytest.mark.parametrize(("vocab_size", "dtype"), [(18, np.uint16), (70_000, np.uint32)])
def test_records_of_tokens_become_token_files(corpus, tmp_path, vocab_size, dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(vocab_size - 1, size=(200, 16)).tolist()
    path = tmp_path / "images.jsonl"
    path.write_text("\n".join(json.dumps({"pixels": image}) for image in images))
    choice = {"text_field": "pixels", "tokenizer": "numbers", "vocab_size": vocab_size}
    data = prepare(corpus | choice | {"paths": str(path)}, block_size=17)
    found = []
    for split in data.splits:
        tokens = data.tokens(split)
        assert tokens.dtype == dtype and data.n_bytes(split) * 17 == data.n_tokens(split) * 16
        assert (tokens.reshape(-1, 17)[:, -1] == data.end_of_text).all()
        found += tokens.reshape(-1, 17)[:, :-1].tolist()
    assert sorted(found) == sorted(images)


def test_bytes_are_text_of_any_corpus(corpus, articles):
    data = prepare(corpus | {"tokenizer": "bytes", "vocab_size": 257}, block_size=8)
    tokenizer = open_tokenizer("bytes", 257)
    texts = "".join(tokenizer.decode(data.tokens(split)) for split in data.splits)
    assert sorted(texts.split("<|endoftext|>")[:-1]) == sorted(a["text"] for a in articles)


@pytest.mark.parametrize("cut", [{"max_bytes": 99}, {"split": "characters", "test_fraction": 0.0}])
def test_numbers_are_not_cut(corpus, cut):
    with pytest.raises(ValueError, match=r"with data\.tokenizer=numbers: its texts can't be cut"):
        prepare(corpus | {"tokenizer": "numbers", "vocab_size": 18} | cut, block_size=8)
