"""A stand-in for W&B's server, which knows runs' histories and files, and no more."""

import json
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = {"id": "owner", "name": "owner"}
TIMES = {"createdAt": "2026-01-01T00:00:00", "updatedAt": "2026-01-01T00:00:00"}


def page(what: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    edges = [{"node": node, "cursor": "c"} for node in nodes]
    return {what: {"edges": edges, "pageInfo": {"endCursor": "c", "hasNextPage": False}}}


@dataclass
class Run:
    """What the server has been sent of a run."""

    created: dict[str, Any] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def take(self, stream: dict[str, Any]) -> None:
        if new := stream.get("files", {}).get("wandb-history.jsonl"):
            self.history[new["offset"] :] = new["content"]
        if new := stream.get("files", {}).get("wandb-summary.json"):
            self.summary = json.loads(new["content"][-1])
        if "exitcode" in stream:
            self.exit_codes.append(stream["exitcode"])


class Server(ThreadingHTTPServer):
    """Answers the requests that W&B 0.31 makes for runs without media, and to read them again.

    Of one project, whose runs it gives whatever the filter. It takes workspaces and reports. Used as
    `with Server() as server`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: defaultdict[str, Run] = defaultdict(Run)  # by id
        self.views: list[dict[str, Any]] = []  # workspaces and reports
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that W&B cuts at its end is none of ours."""

    def described(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        return {
            "id": name, "name": name, "displayName": "", "description": "",
            "config": "{}", "wandbConfig": '{"t": {}}', "sweepName": None, "summaryMetrics": "{}",
            "project": {"id": "project", "name": "dropout", "entity": OWNER}, "tags": [],
            "historyLineCount": len(run.history), "historyTail": json.dumps(run.history[-1:]),
            "eventsLineCount": 0, "eventsTail": "[]", "logLineCount": 0, "notes": "",
        }  # fmt: skip

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "RunResumeStatus":
            name = variables["name"]
            bucket = self.described(name) if self.runs[name].history else None
            return {"model": {"id": "m", "name": "dropout", "entity": OWNER, "bucket": bucket}}
        if operation == "UpsertBucket":
            name = variables["name"]
            run = self.runs[name]
            run.created |= {k: v for k, v in variables.items() if v is not None}
            bucket = self.described(name)
            return {"upsertBucket": {"bucket": bucket, "inserted": not run.history}}
        if operation == "CreateRunFiles":
            url = f"{self.address}/files/{variables['run']}"
            files = [{"name": n, "uploadUrl": f"{url}/{n}"} for n in variables["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "v", "username": "owner", "entity": "owner", "teams": None}}
        if operation == "Runs":
            more = {"projectId": "1", "state": "finished", "user": OWNER}
            nodes = [self.described(name) | more for name in self.runs]
            return {"project": page("runs", nodes) | {"internalId": "1", "runCount": len(nodes)}}
        if operation == "RunFiles":
            files, url = (
                self.runs[variables["name"]].files,
                f"{self.address}/files/{variables['name']}",
            )
            nodes = [
                {
                    "id": name, "name": name, "url": f"{url}/{name}", "md5": "", "directUrl": "",
                    "sizeBytes": len(files[name]), "mimetype": "", "updatedAt": None,
                }
                for name in variables["fileNames"]
            ]  # fmt: skip
            return {"project": {"internalId": "1", "run": page("files", nodes)}}
        if operation == "ProjectInternalId":
            return {"project": {"internalId": "1"}}
        if operation == "GetProjects":
            return page("models", [])
        if operation in ("UpsertView2", "upsertView"):
            view = {k: variables[k] for k in ("name", "displayName", "description", "spec")}
            self.views.append(view)
            own = {"id": "view", "type": "runs", "project": {"id": "1", "name": "P"}} | TIMES
            return {"upsertView": {"view": view | own, "inserted": True}}
        return {"entity": {"organization": None}}


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
            self.server.runs[self.path.split("/")[-2]].take(json.loads(body))
        self.reply(answer)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        _, _, run, name = self.path.split("/", 3)
        self.server.runs[run].files[name] = content
        self.reply({})

    def do_GET(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        self.send(self.server.runs[run].files[name])

    def reply(self, answer: dict[str, Any]) -> None:
        self.send(json.dumps(answer).encode())

    def send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass
