import re
from hashlib import sha256
from math import nextafter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.articles import (
    Corpus,
    by_article_hash,
    by_characters,
    first_bytes,
    join_rows,
    read_texts,
)
from data.config import DataConfig
from data.sources import Source

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


def test_without_a_salt_there_is_none():
    assert list(by_article_hash(ARTICLES, 0.2, 0.2)) == list(
        by_article_hash(ARTICLES, 0.2, 0.2, salt="")
    )


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


def test_a_cut_between_two_texts_leaves_no_empty_piece():
    assert list(by_characters(["ab", "cd"], 2)) == [("train", "ab"), ("val", "cd")]


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


def corpus(*tables, **options):
    """A corpus of tables, each a list of records or of texts, where `##` stands between two."""

    def load():
        for table in tables:
            if isinstance(table, list):
                records = [r if isinstance(r, dict) else {"text": r} for r in table]
                table = pa.Table.from_pylist(records)
            yield table

    return Corpus(Source("here", {}, load, "##"), DataConfig("files", **options))


def texts_of(*tables, end=(), **options):
    made = corpus(*tables, **options)
    return list(read_texts(made.source, made.config, *end))


@pytest.mark.parametrize(("end_of_text", "end"), [(True, ""), (False, "##")])
def test_a_corpus_deals_out_its_articles_as_its_config_says(end_of_text, end):
    fractions = {"val_fraction": 0.3, "test_fraction": 0.2}
    made = corpus(ARTICLES[:50], end_of_text=end_of_text, split_salt="a", **fractions)
    expected = list(by_article_hash(ARTICLES[:50], **fractions, end=end, salt="a"))
    assert list(made.pieces()) == expected


@pytest.mark.parametrize(
    ("end_of_text", "pieces"),
    [
        (True, [("train", "àbc"), ("train", "de"), ("val", "fg")]),
        (False, [("train", "àbc##"), ("train", "def"), ("val", "g##")]),
    ],
)
def test_a_corpus_is_cut_where_its_share_of_the_characters_ends(end_of_text, pieces):
    options = {"split": "characters", "val_fraction": 0.25, "test_fraction": 0.0}
    made = corpus(["àbc"], ["defg"], end_of_text=end_of_text, **options)
    for _ in range(2):
        assert list(made.pieces()) == pieces
        assert (made.n_texts, made.n_bytes) == (2, sum(len(text.encode()) for _, text in pieces))


def test_a_corpus_without_a_text_is_refused():
    with pytest.raises(UserError, match=r"^here has no text in field text$"):
        list(corpus(["", " \n"]).pieces())


def test_texts_of_white_space_are_left_out_and_the_end_counts_as_bytes():
    assert texts_of(["a", "", " \n", "b"], end=("##",)) == ["a##", "b##"]
    assert texts_of(["a", "b"], end=("##",), max_bytes=5) == ["a##", "b#"]


def test_rows_are_joined_where_the_config_says_how_an_article_starts():
    assert texts_of(["= a", "b"], ["= c", "d"], article_start="= ") == ["= ab", "= cd"]


def test_a_text_is_what_the_tokenizer_reads_as_one():
    assert texts_of([{"text": [1, 2]}], tokenizer="numbers", vocab_size=9) == ["1 2"]


def of_topics(topics):
    return [{"text": topic.lower(), "topic": topic} for topic in topics]


def test_topics_are_chosen_from_every_table():
    assert texts_of(of_topics("ABC"), of_topics("CBA"), topics=("A", "B")) == ["a", "b", "b", "a"]


def test_a_misspelt_topic_is_named_with_the_first_twenty_that_there_are():
    with pytest.raises(UserError) as caught:
        texts_of(of_topics("zyxwvutsrqponmlkjihgfedcba"), topics=("a", "aa", "bb"))
    assert str(caught.value) == (
        "data.topics: no record has the topic 'aa' in field topic; the first there are "
        "a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t"
    )


def test_no_more_is_read_than_the_bytes_and_the_topics_ask_for():
    unread = [{"text": 1, "topic": "C"}]  # refused if it is read
    assert texts_of(of_topics("AB"), unread, topics=("A", "B"), max_bytes=1) == ["a"]
    with pytest.raises(UserError, match="must be text"):
        texts_of(of_topics("AB"), unread, topics=("A", "C"), max_bytes=1)
    with pytest.raises(UserError, match="has the topic 'D'"):
        texts_of(of_topics("AB"), of_topics("A"), topics=("A", "D"), max_bytes=1)


NO_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ([{"text": 1}], {}, "data.text_field=text must be text, and in record 3 of here it is of"),
        (["c", {"text": None}], {}, "and in record 4 of here it is empty$"),
        ([{"body": "a"}], {}, "^data.text_field=text is no field of here: there are body$"),
        (pa.table({"text": NO_UTF8}), {}, "text of here is not UTF-8, in a record after the 2th"),
        ([{"text": "a", "topic": 1}], {"topics": ("A",)}, "^data.topic_field=topic .* record 3 of"),
        ([{"text": "a", "kind": 1}], {"topics": ("A",)}, "^data.topic_field=topic is no .* kind$"),
    ],
)
def test_a_record_that_has_no_text_is_named_with_its_number(table, options, message):
    with pytest.raises(UserError, match=message):
        texts_of(of_topics("A"), of_topics("B"), table, **options)
