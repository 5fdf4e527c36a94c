"""A stand-in for the platform's API, with the content of a working day, for tests of the JupyterLab extension."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-the-server"
PREFIX = "/services/torpor/api/v1/"
WORKSPACE = "ws-0123456789abcdefghij"
PAGE = f"/services/torpor/workspaces/{WORKSPACE}"


@dataclass
class Reply:
    """One answer: a document or bytes, with its headers."""

    status: int = 200
    document: Any = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request, as it came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


Route = Callable[[Request], Reply | None]


def resource(kind: str, id: str, name: str, spec: dict[str, Any], status: dict[str, Any], version: int = 1) -> Any:
    common = {"reason": "", "message": "", "since": "2026-11-21T09:00:00Z", "next_step": ""}
    return {
        "id": id,
        "kind": kind,
        "name": name,
        "tenant": "research",
        "owner": "ada",
        "version": version,
        "created_at": "2026-11-21T08:59:00Z",
        "spec": spec,
        "status": {**common, **status},
    }


def problem(status: int, code: str, detail: str, next_step: str = "") -> Reply:
    document = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
    return Reply(status, {**document, "next_step": next_step}, headers={"Content-Type": "application/problem+json"})


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class Platform:
    """Serves until ``close``; ``requests`` is what was asked, ``overrides`` what a test wants answered instead."""

    def __init__(self, rows: list[list[Any]] | None = None) -> None:
        self.requests: list[Request] = []
        self.overrides: dict[tuple[str, str], Route] = {}
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.workspace = workspace()
        self.jobs = {job["id"]: job for job in jobs()}
        self.datasets = {dataset["id"]: dataset for dataset in datasets()}
        self.rows = rows or FLIGHTS
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/services/torpor/"

    def close(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def asked(self, method: str, path: str) -> list[Request]:
        with self.lock:
            return [each for each in self.requests if (each.method, each.path) == (method, path)]

    def _handler(platform) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                if platform.stopped.is_set():
                    self.close_connection = True
                    return
                length = int(self.headers.get("Content-Length") or 0)
                parts = urlsplit(self.path)
                path = parts.path.removeprefix(PREFIX)
                request = Request(
                    self.command,
                    path,
                    parse_qs(parts.query, keep_blank_values=True),
                    dict(self.headers),
                    self.rfile.read(length),
                )
                reply = platform.reply(request, parts.path.startswith(PREFIX))
                try:
                    self.send(reply)
                except OSError:
                    self.close_connection = True

            def send(self, reply: Reply) -> None:
                body = reply.body if reply.document is None else json.dumps(reply.document).encode()
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", "Torpor-Wire": "1", **reply.headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                if reply.status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if reply.status != 304:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        return Handler

    def reply(self, request: Request, ours: bool) -> Reply:
        with self.lock:
            self.requests.append(request)
            override = self.overrides.get((request.method, request.path))
        if override and (answer := override(request)) is not None:
            return answer
        if not ours:
            return problem(404, "not_found", "Nothing is here.")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}" or request.headers.get("Torpor-Wire") != "1":
            return problem(401, "unauthenticated", "The token is missing or unknown.", "Sign in again.")
        with self.lock:
            return self._route(request)

    def _route(self, request: Request) -> Reply:
        match request.method, request.path.split("/"):
            case "GET", ["me"]:
                tenants = [{"name": "research", "title": "Research", "role": "member"}]
                tenants.append({"name": "shared", "title": "Shared data", "role": "viewer"})
                return Reply(document={"name": "ada", "admin": False, "tenants": tenants, "can_write": True})
            case "GET", ["workspaces", _]:
                return versioned(self.workspace, request)
            case "PATCH", ["workspaces", _]:
                return self._wish(self.workspace, request)
            case "GET", ["jobs"]:
                asked = request.query.get("workspace")
                found = [job for job in self.jobs.values() if not asked or job["spec"]["workspace"] in asked]
                return Reply(document={"items": found, "next": None})
            case "GET", ["jobs", id, "log"]:
                return self._log(id, request)
            case "GET", [("jobs" | "datasets") as kind, id]:
                return versioned((self.jobs if kind == "jobs" else self.datasets)[id], request)
            case "PATCH", ["jobs", id]:
                return self._wish(self.jobs[id], request)
            case "GET", ["datasets"]:
                word = request.query.get("search", [""])[0]
                found = [each for each in self.datasets.values() if word in each["name"]]
                return Reply(document={"items": found, "next": None})
            case "GET", ["datasets", id, "schema"]:
                return Reply(document=schema() if self.datasets[id]["status"]["rows"] else None)
            case "GET", ["datasets", id, "sample"]:
                limit = int(request.query.get("limit", ["100"])[0])
                columns = [{"name": each["name"], "type": each["type"]} for each in schema()["columns"]]
                return Reply(document={"columns": columns, "rows": self.rows[:limit], "as_of": AS_OF})
            case "POST", ["datasets", id, "imports"]:
                return self._import(self.datasets[id])
        return problem(404, "not_found", "There is no such thing, or it is not yours to see.")

    def _wish(self, thing: Any, request: Request) -> Reply:
        thing["spec"].update(request.document["spec"])
        thing["version"] += 1
        if thing["spec"]["desired"] == "cancelled":
            thing["status"].update(phase="CANCELLING", message="Ends the job and frees what it holds.")
        if thing["spec"]["desired"] == "stopped":
            thing["status"].update(message="Is being ended.", actions=[])
        if thing["spec"]["desired"] == "asleep":
            thing["status"].update(phase="SLEEPING", message="Saves what changed.", actions=["cancel"], progress=10)
        return Reply(document=thing)

    def _import(self, dataset: Any) -> Reply:
        dataset["version"] += 1
        dataset["status"].update(phase="IMPORTING", message="Waits for an importer.")
        dataset["status"]["import"] = {"id": "imp-2", "phase": "QUEUED", "stage": "", "stages": []}
        return Reply(201, resource("import", "imp-2", "", {}, {"phase": "QUEUED"}))

    def _log(self, id: str, request: Request) -> Reply:
        text = LOG.encode()
        offset = int(request.query.get("offset", ["0"])[0])
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Torpor-Next-Offset": str(len(text)),
            "Torpor-Attempt": "1",
        }
        return Reply(body=text[offset:], headers=headers)


def versioned(thing: Any, request: Request) -> Reply:
    etag = f'"{thing["version"]}"'
    if request.headers.get("If-None-Match") == etag:
        return Reply(304, headers={"ETag": etag})
    return Reply(document=thing, headers={"ETag": etag})


def workspace() -> Any:
    status = {
        "phase": "RUNNING",
        "message": "Running on 1 CPU and 2 GiB of memory.",
        "notice": "Woke at 09:00 with everything that you had installed (3 packages). Kernels and terminals do not "
        "survive a sleep; it slept after 30 minutes without activity.",
        "url": "/user/ada/first/",
        "page": PAGE,
        "progress": None,
        "operation": None,
        "checkpoint": {
            "id": "ckp-1",
            "digest": "sha256:1f",
            "created_at": "2026-11-20T17:31:00Z",
            "size_bytes": 18350080,
        },
        "has_previous": True,
        "lost": "",
        "notes": [],
        "node": None,
        "amount": {"cpu_milli": 1000, "memory_bytes": 2 * 1024**3, "gpu_count": 0},
        "actions": ["open", "sleep", "stop_discard"],
        "confirmations": {"stop_discard": "End 'first' without saving?"},
    }
    spec = {"desired": "running", "profile": "Small", "discard": False, "environment": "current"}
    return resource("workspace", WORKSPACE, "first", spec, status, version=7)


AS_OF = "2026-11-21T08:12:40Z"
STAGES = [
    ("Reach the source", "ok", "3 files below /data/flights", 12),
    ("Sample rows", "ok", "1,000 rows from 2 of 12 partitions", 240),
    ("Describe the columns", "running", "", None),
]


def datasets() -> list[Any]:
    ready: dict[str, Any] = {
        "phase": "READY",
        "as_of": AS_OF,
        "rows": 336776,
        "bytes": 5_400_000,
        "files": 12,
        "sample_rows": 1000,
    }
    ready |= {"import": {"id": "imp-1", "phase": "READY", "stage": "", "stages": []}, "path": "/data/flights"}

    def code(name: str) -> str:
        variable = name.split("/")[1].replace("-", "_")
        return f'import torpor\n\n{variable} = torpor.dataset("{name}").to_pandas()\n{variable}.head()'

    stages = [{"name": name, "state": state, "message": said, "ms": ms} for name, state, said, ms in STAGES]
    importing: dict[str, Any] = {
        "phase": "IMPORTING",
        "message": "Describes the columns (stage 3 of 3).",
        "rows": None,
        "as_of": None,
    }
    importing |= {"import": {"id": "imp-3", "phase": "DESCRIBING", "stage": "Describe the columns", "stages": stages}}
    failed: dict[str, Any] = {
        "phase": "FAILED",
        "reason": "NOT_FOUND",
        "message": "The source has no folder `weather/2013`.",
        "next_step": "Check the path of the dataset, or ask the owner of the source whether the folder was moved.",
        "rows": None,
        "as_of": None,
    }
    spec = {"source": "lake", "path": "flights", "format": "parquet"}
    found: list[tuple[str, str, dict[str, Any], str]] = [
        ("ds-1", "flights", {**ready, "code": code("research/flights")}, "Departures from New York in 2013"),
        ("ds-2", "planes-with-a-rather-long-name", {**importing, "code": ""}, ""),
        ("ds-3", "weather", {**failed, "code": ""}, ""),
        ("ds-4", "airports", {**ready, "rows": 1458, "code": code("shared/airports")}, ""),
    ]
    made = [resource("dataset", id, name, {**spec, "description": said}, status) for id, name, status, said in found]
    made[3]["tenant"] = "shared"
    return made


def schema() -> Any:
    columns = [
        ("month", "int64"),
        ("day", "int64"),
        ("carrier", "string"),
        ("flight", "int64"),
        ("tailnum", "string"),
        ("origin", "string"),
        ("dest", "string"),
        ("dep_delay", "double"),
        ("arr_delay", "double"),
        ("time_hour", "timestamp[us, tz=UTC]"),
    ]
    return {
        "columns": [{"name": name, "type": type, "nullable": "delay" in name} for name, type in columns],
        "partition_keys": ["month"],
        "partitions": {"count": 12, "newest": ["month=12", "month=11"]},
        "as_of": AS_OF,
    }


FLIGHTS: list[list[Any]] = [
    [
        1 + number % 12,
        1 + number % 28,
        ("UA", "AA", "B6", "DL")[number % 4],
        1545 + number,
        f"N{14228 + number}",
        ("EWR", "LGA", "JFK")[number % 3],
        ("IAH", "MIA", "BQN", "ATL")[number % 4],
        None if number % 9 == 4 else float(number % 17 - 3),
        None if number % 9 == 4 else float(number % 23 - 9),
        f"2013-01-01T{5 + number % 12:02}:00:00Z",
    ]
    for number in range(200)
]

LOG = "".join(f"epoch {epoch:2d}  loss {1 / (epoch + 1):.4f}\n" for epoch in range(40))


def jobs() -> list[Any]:
    amount = {"cpu_milli": 2000, "memory_bytes": 4 * 1024**3, "gpu_count": 0}
    parts = ["Needs 2 CPU; 1 of the tenant's 4 CPU is free.", "1 job is before it."]
    ended: dict[str, Any] = {"attempt": 1, "position": None, "parts": [], "log_bytes": len(LOG)}
    listed: list[tuple[str, str, str, dict[str, Any]]] = [
        ("job-5", "delays-by-carrier", "spark", {"phase": "QUEUED", "position": 2, "parts": parts, "attempt": 0}),
        ("job-4", "train", "command", {**ended, "phase": "RUNNING", "message": "Runs since 09:40."}),
        ("job-3", "score", "command", {**ended, "phase": "SUCCEEDED", "message": "Ended after 41 seconds."}),
        (
            "job-2",
            "tune",
            "command",
            {
                **ended,
                "phase": "FAILED",
                "message": "ZeroDivisionError: division by zero.",
                "next_step": "Look at the last lines of its log.",
            },
        ),
        ("job-1", "export", "command", {**ended, "phase": "CANCELLED", "message": "Cancelled by ada."}),
    ]
    listed[0][3]["message"] = "Position 2 in the queue of research."
    spec = {"tenant": "research", "workspace": WORKSPACE, "amount": amount, "desired": "running"}
    return [resource("job", id, name, {**spec, "kind": kind}, status) for id, name, kind, status in listed]
