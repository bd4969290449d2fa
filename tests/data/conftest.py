import json
from types import SimpleNamespace

import pytest

from data.config import DataConfig
from data.prepare import prepare
from data.sources import open_source
from tests.data.hub import REVISION, Hub

SHARDS = 3
RECORDS = 900  # so that a shard is larger than what is read of its end
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


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, to which `datasets` goes; who waits for a next try there waits for nothing."""
    from huggingface_hub.utils import close_session  # imported late: it is slow

    with Hub() as server:
        url = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "huggingface_hub.constants.ENDPOINT": server.endpoint,
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE": url,
            "huggingface_hub.constants.HF_HUB_OFFLINE": False,
            "huggingface_hub.constants.HF_HUB_CACHE": str(tmp_path / "hub"),
            "huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT": 0.5,
            "datasets.config.HF_ENDPOINT": server.endpoint,
            "datasets.config.HF_HUB_OFFLINE": False,
            "datasets.config.HF_UPDATE_DOWNLOAD_COUNTS": False,
            "datasets.config.HF_DATASETS_CACHE": tmp_path / "datasets",
            "datasets.config.STREAMING_OPEN_MAX_RETRIES": 20,  # set by `data.hub`, and put back
            "datasets.config.STREAMING_READ_MAX_RETRIES": 20,
            "huggingface_hub.utils._http.time": SimpleNamespace(sleep=server.waits.append),
            "datasets.utils.file_utils.time": SimpleNamespace(sleep=server.waits.append),
        }.items():
            monkeypatch.setattr(name, value)
        yield server
        close_session()


@pytest.fixture(scope="session")
def records():
    """Some hundred articles of the sample."""
    source = open_source(DataConfig("sample", text_field="extract"))
    rows = []
    for table in source.tables():
        rows += table.select(["extract"]).to_pylist()
        if len(rows) >= RECORDS:
            break
    return [{"id": str(n), "text": row["extract"]} for n, row in enumerate(rows[:RECORDS])]


@pytest.fixture
def hub_cfg(hub, records, tmp_path):
    """The config of `records` on the hub, in SHARDS of them."""
    n = RECORDS // SHARDS
    hub.add([records[first : first + n] for first in range(0, RECORDS, n)])
    return {
        "source": "hub",
        "repo": "some/texts",
        "subset": "en",
        "revision": REVISION,
        "vocab_size": 512,
        "cache_dir": str(tmp_path / "cache"),
        "num_proc": 1,
    }
