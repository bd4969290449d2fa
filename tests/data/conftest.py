import json

import pytest

from data.prepare import prepare

ARTICLES = [
    {"text": f"Article {n} tells of {n * n} things.\n\nAnd more.", "topic": "ABC"[n % 3]}
    for n in range(120)
]


@pytest.fixture(scope="session")
def articles():
    return ARTICLES


@pytest.fixture
def corpus(tmp_path):
    """A small jsonl file, and the config that reads it into a cache of its own."""
    path = tmp_path / "articles.jsonl"
    path.write_text("\n".join(map(json.dumps, ARTICLES)))
    return {
        "source": "files",
        "paths": [str(path)],
        "vocab_size": 512,
        "cache_dir": str(tmp_path / "cache"),
        "num_proc": 2,
    }


@pytest.fixture
def prepared(corpus):
    return prepare(corpus, block_size=8)
