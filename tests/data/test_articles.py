import re
from hashlib import sha256
from math import nextafter

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


# Which article goes where; every fingerprint, and every held-out number, rests on it.
PINNED = {
    "": "train val train test train train train train train test",
    "2026-11": "train train train train val test train train train train",
}


@pytest.mark.parametrize("salt", PINNED)
def test_which_article_goes_where(salt):
    pieces = by_article_hash(ARTICLES[:10], val_fraction=0.2, test_fraction=0.2, salt=salt)
    assert " ".join(split for split, _ in pieces) == PINNED[salt]


@pytest.mark.parametrize("salt", ["", "2026-11"])
def test_the_borders_of_the_splits_are_exactly_where_they_are_said_to_be(salt):
    for text in ARTICLES[:200]:
        digest = sha256((salt + text).encode()).digest()
        u = int.from_bytes(digest[:8], "big") / 2**64
        for fractions, split in [
            ((0.0, u), "train"),  # u < test_fraction is false
            ((0.0, nextafter(u, 1)), "test"),
            ((u, 0.0), "train"),
            ((nextafter(u, 1), 0.0), "val"),
        ]:
            val, test = fractions
            ((found, _),) = by_article_hash([text], val, test, salt=salt)
            assert found == split


def test_another_salt_deals_out_other_splits_and_doubles_stay_together():
    fractions = {"val_fraction": 0.1, "test_fraction": 0.1}
    plain, salted = (
        split_of(ARTICLES * 2, "test", salt=salt, **fractions) for salt in ("", "2026-11")
    )
    assert len(plain & salted) < 0.2 * len(plain)
    sides = [split_of(ARTICLES * 2, s, salt="a", **fractions) for s in ("train", "val", "test")]
    assert sum(map(len, sides)) == len(ARTICLES)


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
