"""A stand-in of the Hugging Face hub on the loopback: as much of it as `datasets` and models ask.

A dataset or a model at one commit (info, tree, resolve) in the hub's own words, with its error codes
in the headers; large files are elsewhere, behind a redirect; shards are read by ranges. It can
misbehave.
"""

import io
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from data.prepare import REPOSITORY

REVISION = "b" * 40
SHARD = ".parquet"
LARGE = (SHARD, ".safetensors")


@dataclass
class Fault:
    """How the server meets some requests.

    Attributes:
        way: `stall` sends half of the answer and then nothing; `drop` half, and hangs up; `short`
            half, as if that were all; `whole` all, where a range was asked; `status` refuses.
        times: how many requests it meets; then the server is well again.
        after: how many of them are answered well before.
        of: the end of the names of the files that it meets.
    """

    way: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 10**6
    after: int = 0
    of: str = SHARD

    def meets(self, name: str) -> bool:
        """Whether this request, now, is one that fails."""
        if not name.endswith(self.of):
            return False
        self.after -= 1
        if self.after >= 0:
            return False
        self.times -= 1
        return self.times >= 0


class Hub:
    """The server, on threads of this process: `with Hub() as hub: ... hub.endpoint`.

    Attributes:
        renamed: the repositories of an old name, and their new one.
        gated: the repositories of which nothing but the info is given.
        requests: method and path of each request.
        shard_bytes: how many bytes of shards were sent.
        waits: for the tests, how long a client would have waited between its tries.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.revisions: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        self.gated: set[str] = set()
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self.shard_bytes = 0
        self.waits: list[float] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def add(
        self,
        shards: list[list[dict[str, str]]],
        repo: str = "some/texts",
        subset: str = "en",
        revision: str = REVISION,
    ) -> None:
        """A repository of one subset in so many shards, as `push_to_hub` lays it out."""
        names = [f"{subset}/train-{i:05}-of-{len(shards):05}{SHARD}" for i in range(len(shards))]
        contents = {"README.md": _card(subset, shards)}
        self.files[repo] = contents | dict(zip(names, map(_parquet, shards), strict=True))
        self.revisions[repo] = revision

    def add_model(self, directory: Path, repo: str = "some/gpt2") -> None:
        """A repository of the files that `save_pretrained` wrote."""
        self.files[repo] = {path.name: path.read_bytes() for path in directory.iterdir()}
        self.revisions[repo] = REVISION

    def asked(self, what: str = SHARD) -> int:
        """How many requests named it."""
        return sum(what in request for request in self.requests)


def _parquet(records: list[dict[str, str]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), file, row_group_size=50, compression="none")
    return file.getvalue()


def _card(subset: str, shards: list[list[dict[str, str]]]) -> bytes:
    """A README, whose head says of what files the subset is, and how large."""
    records = [record for shard in shards for record in shard]
    info = {
        "config_name": subset,
        "features": [{"name": name, "dtype": "string"} for name in records[0]],
        "splits": [
            {
                "name": "train",
                "num_bytes": sum(len(record["text"].encode()) for record in records),
                "num_examples": len(records),
            }
        ],
    }
    files = [{"split": "train", "path": f"{subset}/train-*"}]
    configs = [{"config_name": subset, "data_files": files}]
    head = {"configs": configs, "dataset_info": [info]}
    return f"---\n{json.dumps(head)}\n---\n".encode()  # JSON is YAML


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Nothing: the tests look at `Hub.requests`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
        api = re.fullmatch(
            r"/api/(?:datasets|models)/(\w+/\w+)(?:/(revision|tree)/(\w+))?(?:/(.*))?", path
        )
        file = re.fullmatch(r"(?:/datasets|/cdn)?/(\w+/\w+)/(resolve)/(\w+)/(.+)", path)
        if (found := api or file) is None:
            return self.refuse(404, "Not here")
        repo, what, revision, name = found.groups()
        if new := self.hub.renamed.get(repo):
            return self.send(307, headers={"Location": self.path.replace(repo, new, 1)})
        if repo not in self.hub.files:
            return self.refuse(401, "Invalid username or password.", "RepoNotFound")
        if revision in (None, "main"):
            revision = self.hub.revisions[repo]
        if revision != self.hub.revisions[repo]:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if what in (None, "revision"):
            return self.send_json({"id": repo, "sha": revision, "siblings": [], "tags": []})
        if what == "tree":
            return self.send_tree(self.hub.files[repo], name or "")
        if repo in self.hub.gated:
            return self.refuse(401, f"Access to {repo} is restricted.", "GatedRepo")
        content = self.hub.files[repo].get(name)
        if content is None:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        if name.endswith(LARGE) and not path.startswith("/cdn"):
            return self.send(
                302, headers={"Location": "/cdn" + self.path.removeprefix("/datasets")}
            )
        return self.send_file(name, content, revision)

    def send_tree(self, files: dict[str, bytes], folder: str) -> None:
        """The files and folders in a folder."""
        entries: dict[str, dict[str, Any]] = {}
        for name, content in files.items():
            if folder and not name.startswith(f"{folder}/"):
                continue
            inner, slash, _ = name[len(folder) :].lstrip("/").partition("/")
            path = f"{folder}/{inner}".lstrip("/")
            kind = "directory" if slash else "file"
            oid = sha1(content).hexdigest()
            entries[path] = {"type": kind, "path": path, "size": len(content), "oid": oid}
        self.send_json(list(entries.values()))

    def send_file(self, name: str, content: bytes, revision: str) -> None:
        """A file or a range of it, or what the fault makes of that."""
        headers = {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": revision}
        status, part = 200, content
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            status, part = 206, content[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        with self.hub.lock:
            fault = self.hub.fault if self.hub.fault and self.hub.fault.meets(name) else None
            self.hub.shard_bytes += len(part) * (name.endswith(SHARD) and fault is None)
        match fault and fault.way:
            case None:
                self.send(status, part, headers)
            case "status":
                self.refuse(fault.status, "Sorry", headers=fault.headers)
            case "whole":
                self.send(200, content, headers)
            case "short":
                self.send(status, part[: len(part) // 2], headers)
            case way:
                self.send(status, part, headers, n_sent=len(part) // 2)
                if way == "stall":
                    self.hub.closing.wait()
                self.close_connection = True

    def send_json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(
        self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        headers = {"X-Error-Message": message, "X-Error-Code": code} | (headers or {})
        self.send(status, json.dumps({"error": message}).encode(), headers)

    def send(
        self,
        status: int,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        n_sent: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:n_sent])
            self.wfile.flush()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # who asked has gone
            self.close_connection = True


def as_a_person(hub, tmp_path, *overrides):
    """`train.py` in a process of its own, with the hub where HF_ENDPOINT says."""
    tiny = (
        "steps=2", "batch_size=4", "micro_batch_size=2", "eval_every=2", "save_every=2",
        "model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
        "schedule.warmup_steps=1", "evaluate.windows=8", "evaluate.final_windows=8",
        "evaluate.batch_size=4", "tracker=none", f"runs_dir={tmp_path / 'runs'}",
        f"data.cache_dir={tmp_path / 'cache'}", "data.vocab_size=512",
    )  # fmt: skip
    places = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    return subprocess.Popen(
        [sys.executable, "train.py", *tiny, *overrides],
        cwd=REPOSITORY,
        env=os.environ | places | {"HF_UPDATE_DOWNLOAD_COUNTS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
