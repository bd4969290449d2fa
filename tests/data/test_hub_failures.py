"""What a hub that fails, refuses or has nothing to give comes to: the text, or a clear error."""

import signal
import socket
import time
from dataclasses import replace

import pytest

from data.articles import read_texts
from data.config import DataConfig
from data.prepare import prepare
from data.sources import open_source
from tests.data.hub import REVISION, Fault, Hub, as_a_person


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (Fault("drop", times=3, after=1), 3),
        (Fault("stall", times=1, after=3), 1),
        (Fault("status", 500, times=5), 5),
        (Fault("status", 503, times=2, after=4), 2),
        (Fault("status", 429, times=7, after=2), 7),
        (Fault("status", 429, {"Retry-After": "9"}, times=1), 1),
    ],
    ids=lambda value: getattr(value, "way", ""),
)
def test_what_passes_is_tried_again_and_seen(hub, hub_cfg, records, capfd, fault, tries):
    hub.fault = replace(fault)
    config = DataConfig.from_mapping(hub_cfg)
    assert list(read_texts(open_source(config), config)) == [record["text"] for record in records]
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hub: ")]
    assert sum("etrying in" in line or "Waiting" in line for line in lines) == tries
    assert len(hub.waits) == tries
    assert all("http://" not in line for line in lines)


@pytest.mark.parametrize(
    ("fault", "message", "most"),
    [
        (Fault("drop", after=1), r"can't be reached \(.*closed.*HF_ENDPOINT a mirror", 13),
        (Fault("stall", after=1), r"can't be reached \(.*timed out.*data=sample", 13),
        (Fault("status", 500, after=2), "the hub answers 500; run the same command again later", 8),
        (Fault("status", 429, after=2), "answers 429, too many requests; .*HF_TOKEN", 14),
        (Fault("status", 403, after=2), "answers 403, no right to it; log in with", 3),
        (Fault("status", 404, after=2), "404 Not Found.*data.subset=en and data.hub_split=", 3),
        (Fault("short", after=1), "a file came damaged .*; run the same command again", 5),
        (Fault("short", after=2), "a file came damaged .*; run the same command again", 5),
        (Fault("short", after=3), "a file came damaged .*; run the same command again", 5),
        (Fault("whole", after=3), "a file came damaged .*; run the same command again", 5),
    ],
    ids=lambda value: getattr(value, "way", ""),
)
def test_what_lasts_is_an_error_and_never_half_a_corpus(
    hub, hub_cfg, monkeypatch, tmp_path, fault, message, most
):
    monkeypatch.setattr("data.hub.MAX_TRIES", 2)
    if fault.way == "stall":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub.fault = replace(fault)
    with pytest.raises(ValueError, match=r"^data\.repo=some/texts can't be read: .*" + message):
        prepare(hub_cfg, block_size=8)
    assert hub.asked("/cdn/") <= most
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_shard_that_is_cut_on_the_server_is_an_error(hub, hub_cfg):
    name, content = list(hub.files["some/texts"].items())[-1]
    hub.files["some/texts"][name] = content[:-100]
    with pytest.raises(ValueError, match="a file came damaged"):
        prepare(hub_cfg, block_size=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"repo": "some/thing"},
            "has no such dataset.*check the name, .*/some/thing, or log in with `hf auth",
        ),
        ({"revision": "c" * 40}, "has no commit data.revision=c{40}; they are listed at http"),
        ({"subset": "fr"}, r"'fr' not found. Available: \['en'\]; data.subset=fr and"),
        ({"hub_split": "test"}, r"Available splits: \['train'\]; .* data.hub_split=test must be"),
        (
            {"repo": "gated/texts"},
            "it is gated; ask for access at http.*/datasets/gated/texts, then",
        ),
    ],
)
def test_what_the_hub_has_not_says_what_to_do(hub, hub_cfg, records, change, message):
    hub.add([records], "gated/texts")
    hub.gated.add("gated/texts")
    with pytest.raises(ValueError, match=message):
        prepare(hub_cfg | change, block_size=8)
    assert not hub.waits


def test_a_copy_of_another_commit_is_not_taken(hub, hub_cfg, records):
    from datasets import load_dataset

    hub.add([records[:9]], revision="a" * 40)
    load_dataset("some/texts", "en", revision="a" * 40)
    hub.add([records])
    hub.fault = Fault("status", 403, of="README.md")
    with pytest.raises(ValueError, match="the hub can't be reached"):
        prepare(hub_cfg, block_size=8)


def test_offline_is_said_to_be_so(hub, hub_cfg, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE .* unset"):
        prepare(hub_cfg, block_size=8)


def test_a_hub_that_refuses_is_no_connection(hub, hub_cfg, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"can't be reached \(.*refused.*http://127.0.0.1:9 "):
        prepare(hub_cfg, block_size=8)
    assert time.monotonic() - began < 5 and not hub.waits


def test_a_hub_that_never_answers_is_given_up(hub, hub_cfg, monkeypatch):
    monkeypatch.setattr("data.hub.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"can't be reached \(.*no answer within 0\.2 s|out"):
            prepare(hub_cfg, block_size=8)
        assert time.monotonic() - began < 5 and not hub.waits


HERE = ("data.repo=some/texts", "data.subset=en", f"data.revision={REVISION}")


@pytest.mark.slow
def test_ctrl_c_is_heard_while_the_hub_stalls(records, tmp_path):
    with Hub() as hub:
        hub.add([records])
        hub.fault = Fault("stall", after=1)
        process = as_a_person(hub, tmp_path, "data=wikipedia", *HERE)
        while hub.asked("/cdn/") < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=9)[0]
    assert process.returncode == 75, output
    assert output.endswith("interrupted; the same command goes on or begins again\n")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]
