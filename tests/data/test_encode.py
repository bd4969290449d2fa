import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import encode
from data.encode import Block, blocks, cut_text, encode_blocks
from data.tokenizers import open_tokenizer

TOKENIZERS = [("gpt2", 1024), ("gpt2", 50257), ("bytes", 257)]

# Every sort of blank and visible character that the pattern of GPT-2 treats in its own way.
TEXT = st.text(st.sampled_from("aZé9٣字'!s \n\t\r\x0b\x1c\x85\xa0\u2003\u3000<|>"), max_size=60)


def tokens_of(source, vocab_size=1024, num_proc=2):
    tokens = {}
    for split, part in encode_blocks(source, open_tokenizer("gpt2", vocab_size), num_proc):
        tokens.setdefault(split, []).append(part)
    return {split: np.concatenate(parts).tolist() for split, parts in tokens.items()}


@pytest.mark.parametrize(("name", "vocab_size"), TOKENIZERS)
@settings(deadline=None)
@given(text=TEXT, size=st.integers(1, 9))
def test_cutting_loses_nothing_and_changes_no_token(name, vocab_size, text, size):
    parts = cut_text(text, size)
    assert "".join(parts) == text
    encode = open_tokenizer(name, vocab_size).encode
    apart = [token for part in parts for token in encode(part).tolist()]
    assert apart == encode(text).tolist()


def test_parts_are_as_long_as_asked_where_there_are_blanks():
    parts = cut_text("some words and " * 1000, 100)
    assert all(85 <= len(part) <= 100 for part in parts[:-1]) and len(parts[-1]) <= 100


def test_text_without_a_blank_stays_whole():
    assert cut_text("x" * 1000 + " y", 100) == ["x" * 1000, " y"]
    assert cut_text("x" * 1000, 100) == ["x" * 1000]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["train", "val"]), TEXT), max_size=9))
def test_without_end_of_text_a_split_is_encoded_as_one_text(pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "BLOCK_CHARS", 16)
        tokens = tokens_of(blocks(pieces, end_of_text=False))
    for split in ("train", "val"):
        whole = "".join(text for name, text in pieces if name == split)
        assert tokens.get(split, []) == open_tokenizer("gpt2", 1024).encode(whole).tolist()


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXT, max_size=9))
def test_with_end_of_text_each_article_ends_with_it(articles):
    tokens = tokens_of(blocks([("train", text) for text in articles], end_of_text=True))
    gpt2 = open_tokenizer("gpt2", 1024)
    expected = [token for text in articles for token in (*gpt2.encode(text).tolist(), 1023)]
    assert tokens.get("train", []) == expected


def test_order_does_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(encode, "JOB_CHARS", 50)
    source = [Block("train", f"text {n} " * (n % 7), ends=True) for n in range(300)]
    one = tokens_of(source, num_proc=1)
    assert one == tokens_of(source, num_proc=2) == tokens_of(source, num_proc=5)


def test_only_a_few_jobs_are_read_ahead(monkeypatch):
    monkeypatch.setattr(encode, "JOB_CHARS", 1)
    n_read = 0

    def source():
        nonlocal n_read
        for _ in range(100):
            n_read += 1
            yield Block("train", "text", ends=True)

    for n_written, _ in enumerate(
        encode_blocks(source(), open_tokenizer("gpt2", 1024), num_proc=2)
    ):
        assert n_read - n_written <= 8


def test_names_of_special_tokens_in_a_text_are_text():
    (tokens,) = tokens_of([Block("train", "a <|endoftext|> b", ends=False)]).values()
    assert 1023 not in tokens


def test_tokens_are_unsigned_16_bit():
    gpt2 = open_tokenizer("gpt2", 50257)
    tokens = encode.encode_block(Block("train", "hello world", ends=True), gpt2)
    assert tokens.dtype == np.uint16 and tokens.tolist() == [31373, 995, 50256]
