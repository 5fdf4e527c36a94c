"""A way to the registry that a test can shut, fill, let hang or let lie. What goes through it while it is open is not touched."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Mode = Literal["open", "gone", "full", "lying", "hanging"]
# The second port at which nodes take images over plain HTTP.
PORT = 5001
PIECE = 1 << 20
HOPS = {"connection", "keep-alive", "transfer-encoding"}
SAVED = re.compile(r"/v2/.+/workspaces/.+/(blobs|manifests)/[^/?]+")
FULL = {"errors": [{"code": "UNKNOWN", "message": "unknown error: write /data: no space left on device"}]}
ANSWERS_WITHIN_S = 300


@dataclass
class RegistryDoor:
    """Forwards ``host`` and a port of its own to the registry ``target``.

    Gone: connections are cut, the first that comes then too, and those after it are refused. Full: nothing more can be written.
    Lying: it says that it has kept saved environments and keeps none, and those of before read back as something else. Hanging:
    an image's last part, its manifest, gets no answer; ``held`` is set while one waits. ``faults`` counts what has met one of
    these; of those who come while it is gone, the first alone.
    """

    target: str
    host: str
    port: int = PORT
    mode: Mode = "open"
    faults: int = 0
    held: threading.Event = field(default_factory=threading.Event)
    _moving: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)
    _server: _Server | None = None
    _last: socket.socket | None = None

    @property
    def address(self) -> str:
        """Host and port, as nodes and the platform name them."""
        return f"{self.host}:{self.port}"

    def be(self, mode: Mode) -> None:
        """Behave like that from now on."""
        self.mode = mode
        if mode == "hanging":
            self._moving.clear()
        else:
            self._moving.set()
            self.held.clear()
        if mode == "gone":
            self.close()
            self._last = socket.create_server((self.host, self.port))
            threading.Thread(target=self._turn_away, args=(self._last,), daemon=True).start()
        elif self._server is None:
            self._answer_nobody()
            self._server = _Server(self)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and cut those that are open."""
        self._moving.set()
        self._answer_nobody()
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _answer_nobody(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            with contextlib.suppress(OSError):
                last.shutdown(socket.SHUT_RDWR)

    def _turn_away(self, listener: socket.socket) -> None:
        """Cut one connection, by which it is known that somebody came; refuse those after it."""
        with contextlib.suppress(OSError), listener:
            incoming, _ = listener.accept()
            self.faults += 1
            incoming.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            incoming.close()

    def pause(self) -> None:
        """Return when requests may go on."""
        self.held.set()
        self._moving.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, door: RegistryDoor) -> None:
        super().__init__((door.host, door.port), type("Handler", (_Handler,), {"door": door}))

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that were cut: that is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    door: RegistryDoor

    def setup(self) -> None:
        super().setup()
        self.door._open.add(self.connection)

    def finish(self) -> None:
        self.door._open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode, writes = self.door.mode, self.command in ("POST", "PUT", "PATCH")
        if mode == "full" and writes:
            self.door.faults += 1
            self._answer(500, json.dumps(FULL).encode())
            return
        if mode == "lying" and self.command == "PUT" and SAVED.fullmatch(self.path):
            self.door.faults += 1
            self._answer(201, b"", {"Docker-Content-Digest": f"sha256:{hashlib.sha256(body).hexdigest()}"})
            return
        if mode == "hanging" and self.command == "PUT" and "/manifests/" in self.path:
            self.door.faults += 1
            self.door.pause()
        self._forward(body)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that the base class calls

    def _forward(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.door.target, timeout=ANSWERS_WITHIN_S)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOPS}
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            self._pass_on(answer)
        finally:
            upstream.close()

    def _pass_on(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOPS:
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None and answer.status != 204:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        lies = self.door.mode == "lying" and self.command == "GET" and SAVED.fullmatch(self.path.partition("?")[0])
        while piece := answer.read(PIECE):
            if lies:
                self.door.faults += 1
                piece, lies = bytes([piece[0] ^ 1]) + piece[1:], None
            self.wfile.write(piece)

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def opened(registry: str) -> Iterator[RegistryDoor]:
    """Give a door to ``registry``, given as host and port, at the same host."""
    door = RegistryDoor(registry, registry.partition(":")[0])
    door.be("open")
    try:
        yield door
    finally:
        door.close()
