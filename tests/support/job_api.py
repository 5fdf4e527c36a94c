"""A stand-in for the api's routes for wrappers: keeps what they send, and can be away for a while."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BASE = "/services/torpor/"


class JobApi:
    """One job's tasks, by attempt name, and everything that wrappers reported."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.tasks: dict[str, dict[str, Any]] = {}
        self.bundles: dict[str, bytes] = {}
        self.desired: dict[str, str] = {}
        self.beats: dict[str, int] = {}
        self.segments: dict[str, dict[int, bytes]] = {}
        self.results: dict[str, bytes] = {}
        self.exits: dict[str, dict[str, Any]] = {}
        self.refused: set[str] = set()
        self.changed = threading.Condition()
        self.port = 0
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}{BASE}"

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = _Server((self._host, self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
            self._server = None

    def add(self, attempt: str, code: dict[str, Any], *, bundle: bytes | None = None, **more: Any) -> None:
        job, _, number = attempt.rpartition("-a")
        described = None
        if bundle is not None:
            self.bundles[attempt] = bundle
            described = {"size_bytes": len(bundle), "sha256": hashlib.sha256(bundle).hexdigest()}
        task = {"job": job, "attempt": int(number), "ranks": 1, "kind": "command", "code": code, "bundle": described}
        amount = {"cpu_milli": 1000, "memory_bytes": 1024**3, "gpu_count": 0}
        self.tasks[attempt] = {**task, "amount": amount, "timeout_s": None, **more}

    def log(self, name: str) -> str:
        """Return the log as far as it arrived without a gap."""
        text = b""
        for start, segment in sorted(self.segments.get(name, {}).items()):
            if start > len(text):
                break
            text = text[:start] + segment
        return text.decode()

    def wait(self, condition: Any, within_s: float = 20) -> bool:
        """Return whether ``condition()`` came true before the deadline; it is asked at each report."""
        with self.changed:
            return bool(self.changed.wait_for(condition, within_s))


class _Server(ThreadingHTTPServer):
    """Ends also the connections that are open when it is stopped."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        del client_address
        if request in self._open:
            super().handle_error(request, ())

    def hang_up(self) -> None:
        while self._open:
            connection = self._open.pop()
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    api: JobApi
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        name, rest = self._target()
        if name in self.api.refused or name not in self.api.tasks:
            self._answer(404, b"{}")
        elif rest == ["task"]:
            desired = self.api.desired.get(name, "running")
            self._answer(200, json.dumps({**self.api.tasks[name], "desired": desired}).encode())
        else:
            self._answer(200, self.api.bundles[name])

    def do_PUT(self) -> None:
        name, rest = self._target()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sha256 = self.headers.get("Torpor-SHA256")
        if name in self.api.refused or (sha256 and hashlib.sha256(body).hexdigest() != sha256):
            self._answer(409, b"{}")
            return
        with self.api.changed:
            answer = self._store(name, rest, body)
            self.api.changed.notify_all()
        self._answer(200, json.dumps(answer).encode())

    def _store(self, name: str, rest: list[str], body: bytes) -> dict[str, str]:
        if rest[0] == "state":
            self.api.beats[name] = self.api.beats.get(name, 0) + 1
        elif rest[0] == "logs":
            self.api.segments.setdefault(name, {})[int(rest[2])] = body
        elif rest[0] == "result":
            self.api.results[name] = body
        elif rest[0] == "exit":
            self.api.exits[name] = json.loads(body)
        return {"desired": self.api.desired.get(name, "running")}

    def _target(self) -> tuple[str, list[str]]:
        assert self.headers["Authorization"] == "Bearer torpor.token"
        job, _, number, *rest = self.path.removeprefix(f"{BASE}api/v1/jobs/").split("/")
        return f"{job}-a{number}", rest

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
