"""W&B online, at a stand-in for its server that knows one run's history and files, and no more."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OWNER = {"id": "owner", "name": "owner"}


def page(what: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    edges = [{"node": node, "cursor": "c"} for node in nodes]
    return {what: {"edges": edges, "pageInfo": {"endCursor": "c", "hasNextPage": False}}}


class Server(ThreadingHTTPServer):
    """Answers the requests that W&B 0.31 makes for a run without media, and to read it again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.history: list[str] = []
        self.created: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.exit_codes: list[int] = []
        self.files: dict[str, bytes] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that W&B cuts at its end is none of ours."""

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        run = {
            "id": "run", "name": variables.get("name"), "displayName": "", "description": "",
            "config": "{}", "wandbConfig": '{"t": {}}', "sweepName": None, "summaryMetrics": "{}",
            "project": {"id": "project", "name": "dropout", "entity": OWNER}, "tags": [],
            "historyLineCount": len(self.history), "historyTail": json.dumps(self.history[-1:]),
            "eventsLineCount": 0, "eventsTail": "[]", "logLineCount": 0, "notes": "",
        }  # fmt: skip
        if operation == "RunResumeStatus":
            bucket = run if self.history else None
            return {"model": {"id": "m", "name": "dropout", "entity": OWNER, "bucket": bucket}}
        if operation == "UpsertBucket":
            self.created |= {k: v for k, v in variables.items() if v is not None}
            return {"upsertBucket": {"bucket": run, "inserted": not self.history}}
        if operation == "CreateRunFiles":
            url = f"{self.address}/files"
            files = [{"name": n, "uploadUrl": f"{url}/{n}"} for n in variables["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "v", "username": "owner", "entity": "owner", "teams": None}}
        if operation == "Runs":
            node = {"projectId": "1", "state": "finished", "user": OWNER} | run | {"name": "id"}
            return {"project": page("runs", [node]) | {"internalId": "1", "runCount": 1}}
        if operation == "RunFiles":
            nodes = [
                {
                    "id": name, "name": name, "url": f"{self.address}/files/{name}", "md5": "",
                    "directUrl": "", "sizeBytes": len(self.files[name]), "mimetype": "",
                    "updatedAt": None,
                }
                for name in variables["fileNames"]
            ]  # fmt: skip
            return {"project": {"internalId": "1", "run": page("files", nodes)}}
        return {"entity": {"organization": None}}

    def take(self, stream: dict[str, Any]) -> None:
        if new := stream.get("files", {}).get("wandb-history.jsonl"):
            self.history[new["offset"] :] = new["content"]
        if new := stream.get("files", {}).get("wandb-summary.json"):
            self.summary = json.loads(new["content"][-1])
        if "exitcode" in stream:
            self.exit_codes.append(stream["exitcode"])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            query = json.loads(body)
            operation = re.findall(r"\b(?:query|mutation)\s+(\w+)", query["query"])[0]
            answer = {"data": self.server.answer(operation, query.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.take(json.loads(body))
        self.reply(answer)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.files[self.path.removeprefix("/files/")] = content
        self.reply({})

    def do_GET(self) -> None:
        self.send(self.server.files[self.path.removeprefix("/files/")])

    def reply(self, answer: dict[str, Any]) -> None:
        self.send(json.dumps(answer).encode())

    def send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


SESSION = """
import os, signal, sys
from pathlib import Path
from tracking.trackers import Event, TrackedRun
from tracking.wandb import WandbTracker

directory, last, exit_code = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
events = [Event(step, {"val/loss_nats": 1 / step}) for step in range(1, last + 1)]
if exit_code == 0:
    events.append(Event(last, {"final/val/loss_nats": 0.5, "time_s": 7.0}, closing=True))
run = TrackedRun("id", directory, {"seed": 1}, "table", "row", "name", [], exit_code)
WandbTracker(project="dropout", mode="online").track(run, events)
"""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def ask(server: Server, program: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": server.address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


READ = """
import json, sys
from experiments.sources import from_wandb

(record,) = from_wandb("published_nano", "dropout", None)
assert record.content == json.load(open(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run_without_gaps_or_doubled_steps(tmp_path, server):
    """Each session brings its steps from the first on, as `RunRecord` does after a resume.

    The last one goes on from the end: killed in its closing evaluation, say. Its record is read back.
    """
    record = tmp_path / "record.json"
    finished = (ROOT / "results/runs/published_nano/none/seed1.json").read_text()
    for last, exit_code in ((5, os.EX_TEMPFAIL), (8, 1), (8, 0)):
        record.write_text(finished if exit_code == 0 else '{"status": "running"}')
        ask(server, SESSION, tmp_path, last, exit_code)
    ask(server, READ, record)
    assert server.created.items() >= {
        "name": "id", "project": "dropout", "groupName": "table", "jobType": "row",
    }.items()  # fmt: skip
    lines = [json.loads(line) for line in server.history]
    assert [line["_step"] for line in lines] == list(range(1, 9))
    assert [line["val/loss_nats"] for line in lines] == [1 / step for step in range(1, 9)]
    assert server.summary.items() >= {"final/val/loss_nats": 0.5, "progress/time_s": 7.0}.items()
    assert server.exit_codes == [os.EX_TEMPFAIL, 1, 0]
