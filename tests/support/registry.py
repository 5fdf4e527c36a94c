"""Registries for tests: one in this process that fails as it is told, and Debian's real one as a program."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROGRAM = "registry"
MANIFEST_PATH = re.compile(r"/v2/(.+)/manifests/([^/]+)")
BLOB_PATH = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
UPLOAD_PATH = re.compile(r"/v2/(.+)/blobs/uploads/([^/]*)")


@dataclass
class Faults:
    """What goes wrong next. Numbers count down; sets hold digests; ``token`` is demanded, and ``issued`` in its place given."""

    cut_patches: int = 0
    cut_commits: int = 0
    busy: int = 0
    full: bool = False
    refuses_mounts: bool = False
    lies_about: set[str] = field(default_factory=set)
    breaks_off: set[str] = field(default_factory=set)
    rots: set[str] = field(default_factory=set)
    loses_sessions: bool = False
    hangs: threading.Event | None = None
    token: str = ""
    issued: str | None = None


@dataclass
class FakeRegistry:
    """What is kept, what is being uploaded, and what was asked (method and path)."""

    faults: Faults = field(default_factory=Faults)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    host: str = ""

    def named_blobs(self, manifest: bytes) -> list[str]:
        document = json.loads(manifest)
        return [document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]


@contextlib.contextmanager
def fake() -> Iterator[FakeRegistry]:
    """A registry in this process, on a port of its own."""
    registry = FakeRegistry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": registry}))
    server.daemon_threads = True
    registry.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FakeRegistry

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.registry.asked.append(f"{self.command} {urlsplit(self.path).path}")
        return True

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that the base class calls

    def _route(self) -> None:
        faults = self.registry.faults
        if faults.hangs is not None:
            faults.hangs.wait()
        if urlsplit(self.path).path == "/token":
            self._answer(200, json.dumps({"token": faults.issued or faults.token, "expires_in": 300}).encode())
            return
        if faults.token and self.headers.get("Authorization") != f"Bearer {faults.token}":
            self.close_connection = True
            realm = f'Bearer realm="http://{self.registry.host}/token",service="fake",scope="repository:x:pull,push"'
            self._answer(401, b"{}", {"WWW-Authenticate": realm})
            return
        if faults.busy > 0:
            faults.busy -= 1
            self.close_connection = True
            self._answer(503, b"busy")
            return
        path = urlsplit(self.path).path
        for pattern, kind in ((UPLOAD_PATH, "upload"), (BLOB_PATH, "blob"), (MANIFEST_PATH, "manifest")):
            if found := pattern.fullmatch(path):
                getattr(self, f"_{kind}_{self.command.lower()}")(*found.groups())
                return
        self._answer(200, b"{}")

    def _upload_post(self, repository: str, _session: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "mount" in query and not self.registry.faults.refuses_mounts:
            digest, source = query["mount"][0], query["from"][0]
            if (source, digest) in self.registry.blobs:
                self.registry.blobs[repository, digest] = self.registry.blobs[source, digest]
                self._answer(201)
                return
        if self.registry.faults.full:
            self._no_space()
            return
        session = uuid.uuid4().hex
        self.registry.uploads[session] = bytearray()
        self._session(202, repository, session)

    def _upload_get(self, repository: str, session: str) -> None:
        if self.registry.faults.loses_sessions:
            self.registry.uploads.pop(session, None)
        self._session(204 if session in self.registry.uploads else 404, repository, session)

    def _upload_delete(self, _repository: str, session: str) -> None:
        self._answer(204 if self.registry.uploads.pop(session, None) is not None else 404)

    def _upload_patch(self, repository: str, session: str) -> None:
        held, faults = self.registry.uploads[session], self.registry.faults
        size = int(self.headers["Content-Length"])
        first = int(self.headers["Content-Range"].partition("-")[0])
        if first != len(held):
            self.close_connection = True
            self._answer(416)
            return
        if faults.cut_patches > 0 or faults.full:
            held += self.rfile.read(size // 2)
            self.close_connection = True
            if faults.full:
                self._no_space()
            faults.cut_patches -= 1
            return
        held += self.rfile.read(size)
        self._session(202, repository, session)

    def _upload_put(self, repository: str, session: str) -> None:
        held, faults = self.registry.uploads.get(session), self.registry.faults
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if held is None:
            self._error(404, "BLOB_UPLOAD_UNKNOWN", "unknown upload")
            return
        if faults.full and content:
            self._no_space()
            return
        digest = parse_qs(urlsplit(self.path).query)["digest"][0]
        whole = bytes(held) + content
        if "sha256:" + hashlib.sha256(whole).hexdigest() != digest:
            self._error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            return
        self.registry.blobs[repository, digest] = whole
        del self.registry.uploads[session]
        if faults.cut_commits > 0:
            faults.cut_commits -= 1
            self.close_connection = True
            return
        self._answer(201)

    def _blob_head(self, repository: str, digest: str) -> None:
        self._blob_get(repository, digest)

    def _blob_get(self, repository: str, digest: str) -> None:
        faults, content = self.registry.faults, self.registry.blobs.get((repository, digest))
        if content is None:
            self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        if self.command == "GET" and digest in faults.lies_about:
            self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        if digest in faults.rots:
            content = bytes([content[0] ^ 1]) + content[1:]
        status = 200
        if ranged := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            status, content = 206, content[int(ranged[1]) : int(ranged[2]) + 1]
        if self.command == "GET" and digest in faults.breaks_off:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.close_connection = True
            return
        self._answer(status, content)

    def _manifest_put(self, repository: str, tag: str) -> None:
        manifest = self.rfile.read(int(self.headers["Content-Length"]))
        for digest in self.registry.named_blobs(manifest):
            if (repository, digest) not in self.registry.blobs:
                self._error(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {digest}")
                return
        digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
        self.registry.manifests[repository, digest] = manifest
        self.registry.tags[repository, tag] = digest
        self._answer(201, b"", {"Docker-Content-Digest": digest})

    def _manifest_get(self, repository: str, reference: str) -> None:
        digest = self.registry.tags.get((repository, reference), reference)
        content = self.registry.manifests.get((repository, digest))
        if content is None:
            self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        rotten = digest in self.registry.faults.rots
        self._answer(200, content + b" " if rotten else content, {"Docker-Content-Digest": digest})

    def _manifest_delete(self, repository: str, digest: str) -> None:
        if self.registry.manifests.pop((repository, digest), None) is None:
            self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        self.registry.tags = {key: value for key, value in self.registry.tags.items() if value != digest}
        self._answer(202)

    def _session(self, status: int, repository: str, session: str) -> None:
        held = len(self.registry.uploads.get(session, b""))
        headers = {
            "Location": f"/v2/{repository}/blobs/uploads/{session}?_state={held}",
            "Range": f"0-{max(held - 1, 0)}",
        }
        self._answer(status, b"", headers)

    def _no_space(self) -> None:
        self._error(500, "UNKNOWN", "unknown error: write /data: no space left on device")

    def _error(self, status: int, code: str, message: str) -> None:
        self._answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode())

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def real(folder: Path, tls: dict[str, str] | None = None, **configuration: Any) -> Iterator[str]:
    """The host and port of Debian's registry, which keeps its files in ``folder``; ``configuration`` is added to its own.

    ``tls`` names the files of its ``certificate`` and ``key``; without them it speaks plain HTTP.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{_free_port()}"
    settings = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host, **({"tls": tls} if tls else {})},
        **configuration,
    }
    (folder / "registry.json").write_text(json.dumps(settings))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", str(folder / "registry.json")], stdout=log, stderr=log)
    try:
        _await_answer(host, process, folder / "registry.log")
        yield host
    finally:
        process.terminate()
        process.wait()


def is_installed() -> bool:
    """Whether the real registry can be started here."""
    return shutil.which(PROGRAM) is not None


def _await_answer(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
            except urllib.error.HTTPError:
                return
            return
        time.sleep(0.02)
    raise AssertionError(f"the registry does not answer: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
