import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.articles import by_article_hash, by_characters, first_bytes, join_rows

ARTICLES = [f"Article {number} is about {number * number}." for number in range(4000)]


def split_of(texts, split, **fractions):
    return {text for name, text in by_article_hash(texts, **fractions) if name == split}


def test_article_shares_are_as_asked():
    fractions = {"val_fraction": 0.2, "test_fraction": 0.1}
    for split, share in [("train", 0.7), ("val", 0.2), ("test", 0.1)]:
        sigma = (len(ARTICLES) * share * (1 - share)) ** 0.5
        n_articles = len(split_of(ARTICLES, split, **fractions))
        assert abs(n_articles - share * len(ARTICLES)) < 4 * sigma


def test_an_article_stays_in_its_split_whatever_else_there_is():
    fractions = {"val_fraction": 0.1, "test_fraction": 0.1}
    few = ARTICLES[::7]
    for split in ("train", "val", "test"):
        assert split_of(few, split, **fractions) == split_of(ARTICLES, split, **fractions) & {*few}


def test_a_larger_val_never_takes_from_test():
    small = split_of(ARTICLES, "test", val_fraction=0.1, test_fraction=0.1)
    assert small == split_of(ARTICLES, "test", val_fraction=0.5, test_fraction=0.1)


@settings(deadline=None)
@given(st.lists(st.text(max_size=9), max_size=9), st.integers(0, 60))
def test_a_character_cut_is_one_cut_of_the_whole(texts, n_train):
    pieces = list(by_characters(texts, n_train))
    whole = "".join(texts)
    assert "".join(text for split, text in pieces if split == "train") == whole[:n_train]
    assert "".join(text for split, text in pieces if split == "val") == whole[n_train:]
    assert sorted(pieces, key=lambda piece: piece[0] == "val") == pieces


@settings(deadline=None)
@given(st.lists(st.text(max_size=9), max_size=9), st.integers(1, 60))
def test_first_bytes_is_the_longest_whole_text_that_fits(texts, max_bytes):
    whole = "".join(texts).encode()
    got = "".join(first_bytes(texts, max_bytes))
    assert got == whole[:max_bytes].decode(errors="ignore")
    assert list(first_bytes(texts, None)) == texts


def test_lines_are_joined_to_the_articles_of_wikitext():
    rows = [
        "",
        " = One = \n",
        "",
        " text . \n",
        " = = Part = = \n",
        " more \n",
        " = Two = \n",
        " x \n",
    ]
    begins = re.compile(r" = [^=].* = \n").match
    assert list(join_rows(rows, begins)) == [
        "",
        " = One = \n text . \n = = Part = = \n more \n",
        " = Two = \n x \n",
    ]


@pytest.mark.parametrize("end", ["", "\n\n"])
def test_the_end_is_put_after_each_article_and_is_no_part_of_its_hash(end):
    fractions = {"val_fraction": 0.3, "test_fraction": 0.3}
    plain = list(by_article_hash(ARTICLES[:50], **fractions))
    assert list(by_article_hash(ARTICLES[:50], end=end, **fractions)) == [
        (split, text + end) for split, text in plain
    ]
