"""A platform in memory behind ``httpx.MockTransport``: it speaks the wire contract, and its tests say what is so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from email import message_from_bytes
from typing import Any

import httpx

from torpor import Client

URL = "http://platform.test/services/torpor/"
TOKEN = "secret-token-of-ada"
AT = "2026-11-02T10:00:00Z"
GIB = 1024**3
AMOUNT = {"cpu_milli": 1000, "memory_bytes": GIB, "gpu_count": 0}
OPTIONS = {
    "kinds": [
        {"kind": "command", "title": "Python or a command", "description": "A function, or any program."},
        {"kind": "spark", "title": "Spark", "description": "A Spark driver and its executors."},
    ],
    "environments": [
        {"value": "workspace", "title": "This workspace, with what is installed now"},
        {"value": "profile", "title": "The profile, nothing installed"},
    ],
    "default": {"kind": "command", "amount": AMOUNT, "environment": "workspace"},
    "most": {"cpu_milli": 4000, "memory_bytes": 8 * GIB, "gpu_count": 0},
    "tenant": "research",
}


def identity(kind: str, number: int) -> str:
    """Return an id as the platform makes them."""
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    return f"{kind}-01k9aaaaaaaaaaaaaa{digits[number // 32]}{digits[number % 32]}"


class FakePlatform:
    """Jobs, workspaces and datasets in dictionaries by id. ``script`` holds states that a thing passes, one for each look."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.things: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, bytes] = {}
        self.results: dict[str, bytes] = {}
        self.bundles: dict[str, bytes] = {}
        self.samples: dict[str, bytes] = {}
        self.script: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[tuple[str, str], Callable[[httpx.Request], httpx.Response]] = {}
        self.options = OPTIONS

    def client(self, **options: Any) -> Client:
        """Return a client of this platform."""
        environ = {"HOME": "/nowhere", **options.pop("environ", {})}
        return Client(URL, TOKEN, transport=self.transport, environ=environ, retry_pauses_s=(0, 0), **options)

    @property
    def transport(self) -> httpx.MockTransport:
        """Return what takes the place of the network."""
        return httpx.MockTransport(self.handle)

    def add(self, kind: str, name: str, *, spec: dict[str, Any] | None = None, **status: Any) -> str:
        """Return the id of a new thing."""
        prefix = {"workspace": "ws", "job": "job", "dataset": "ds", "import": "imp", "read": "rd", "tenant": "tn"}[kind]
        key = identity(prefix, len(self.things))
        state = {"phase": "READY", "reason": "", "message": "", "next_step": "", "since": AT, **status}
        self.things[key] = {
            "id": key,
            "kind": kind,
            "name": name,
            "tenant": "research",
            "owner": "ada",
            "version": 1,
            "created_at": AT,
            "spec": spec or {},
            "status": state,
            "member_of_a_newer_platform": True,
        }
        return key

    def set(self, key: str, **status: Any) -> None:
        """Change the state of a thing."""
        self.things[key]["status"] |= status
        self.things[key]["version"] += 1

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Return the answer to one request."""
        self.requests.append(request)
        path = request.url.path.removeprefix("/services/torpor/api/v1/")
        special = self.answers.get((request.method, path))
        if special is not None:
            return special(request)
        if path == "health":
            return httpx.Response(200, json={"status": "ok", "version": "0.1.0", "wire": [1]})
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(
                401, "not_signed_in", "Your token is not known.", "Sign in again: torpor login --token-stdin."
            )
        parts = path.split("/")
        return getattr(self, f"_{request.method.lower()}")(request, *parts)

    def _get(self, request: httpx.Request, collection: str, key: str = "", *below: str) -> httpx.Response:
        if collection == "me":
            tenants = [{"name": "research", "title": "Research", "role": "member"}]
            return httpx.Response(200, json={"name": "ada", "admin": False, "tenants": tenants, "can_write": True})
        if collection == "job-options":
            return httpx.Response(200, json=self.options)
        if not key:
            return self._list(request, collection)
        if key not in self.things:
            return problem(404, "not_found", f"There is no {key}, or you may not see it.", "Check the id.")
        return getattr(self, f"_get_{below[0]}")(request, key) if below else self._one(request, key)

    def _one(self, request: httpx.Request, key: str) -> httpx.Response:
        if self.script.get(key):
            self.set(key, **self.script[key].pop(0))
        if request.headers.get("if-none-match") == f'"{self.things[key]["version"]}"':
            return httpx.Response(304)
        return httpx.Response(200, json=self.things[key])

    def _list(self, request: httpx.Request, collection: str) -> httpx.Response:
        kind = collection.removesuffix("s")
        params = request.url.params
        found = [thing for thing in self.things.values() if thing["kind"] == kind]
        found = found[::-1] if kind == "job" else found
        if "name" in params:
            found = [thing for thing in found if f"{thing['tenant']}/{thing['name']}" == params["name"]]
        if "search" in params:
            found = [thing for thing in found if params["search"] in thing["name"]]
        begin, limit = int(params.get("cursor", 0)), int(params.get("limit", 50))
        page = found[begin : begin + limit]
        following = str(begin + limit) if begin + limit < len(found) else None
        return httpx.Response(200, json={"items": page, "next": following})

    def _get_log(self, request: httpx.Request, key: str) -> httpx.Response:
        if self.things[key]["kind"] == "workspace":
            return httpx.Response(200, json={"text": self.logs.get(key, b"").decode()})
        content, params = self.logs.get(key, b""), request.url.params
        offset = max(0, len(content) - int(params["tail"])) if "tail" in params else int(params.get("offset", 0))
        attempt = params.get("attempt", str(self.things[key]["status"].get("attempt", 1)))
        headers = {"Torpor-Next-Offset": str(len(content)), "Torpor-Attempt": attempt}
        return httpx.Response(200, content=content[offset:], headers=headers)

    def _get_result(self, _: httpx.Request, key: str) -> httpx.Response:
        content = self.results[key]
        return httpx.Response(200, content=content, headers={"Torpor-SHA256": hashlib.sha256(content).hexdigest()})

    def _get_schema(self, _: httpx.Request, key: str) -> httpx.Response:
        columns = [
            {"name": "month", "type": "int64", "nullable": False},
            {"name": "carrier", "type": "string", "nullable": True},
        ]
        partitions = {"count": 12, "newest": ["month=12"]}
        body = {"columns": columns, "partition_keys": ["month"], "partitions": partitions, "as_of": AT}
        return httpx.Response(200, json=body)

    def _get_sample(self, request: httpx.Request, key: str) -> httpx.Response:
        if request.url.params.get("format") == "arrow":
            return httpx.Response(200, content=self.samples[key])
        columns = [{"name": "month", "type": "int64"}, {"name": "carrier", "type": "string"}]
        rows = [[1, "UA"], [2, "AA"]][: int(request.url.params["limit"])]
        return httpx.Response(200, json={"columns": columns, "rows": rows, "as_of": AT})

    def _get_stream(self, _: httpx.Request, key: str) -> httpx.Response:
        return httpx.Response(200, content=self.samples[key])

    def _get_checkpoints(self, _: httpx.Request, key: str) -> httpx.Response:
        return httpx.Response(200, json={"items": [], "next": None})

    def _post(self, request: httpx.Request, collection: str, key: str = "", *below: str) -> httpx.Response:
        if not request.headers.get("idempotency-key"):
            return problem(422, "invalid", "The header Idempotency-Key is missing.", "")
        if collection == "jobs":
            return self._submitted(request)
        fields = json.loads(request.content)
        kind = {"workspaces": "workspace", "datasets": "dataset"}[collection]
        if below:
            kind = below[0].removesuffix("s")
        made = self.add(kind, fields.get("name", ""), spec=fields, phase="NEW" if kind == "workspace" else "QUEUED")
        if kind == "read":
            self.samples[made] = self.samples[key]
        return httpx.Response(201, json=self.things[made])

    def _submitted(self, request: httpx.Request) -> httpx.Response:
        parts = multipart(request)
        spec = json.loads(parts["spec"])
        key = self.add("job", spec["name"], spec=spec, phase="QUEUED", position=1, attempt=1)
        self.bundles[key] = parts.get("bundle", b"")
        return httpx.Response(201, json=self.things[key])

    def _patch(self, request: httpx.Request, collection: str, key: str) -> httpx.Response:
        if key not in self.things:
            return problem(404, "not_found", f"There is no {key}, or you may not see it.", "Check the id.")
        self.things[key]["spec"] |= json.loads(request.content)["spec"]
        self.things[key]["version"] += 1
        return httpx.Response(200, json=self.things[key])

    def _delete(self, _: httpx.Request, collection: str, key: str) -> httpx.Response:
        del self.things[key]
        return httpx.Response(202)


def problem(status: int, code: str, detail: str, next_step: str, pointer: str = "") -> httpx.Response:
    """Return a problem document."""
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        "pointer": pointer,
        "next_step": next_step,
        "request_id": "req-7f",
    }
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


def multipart(request: httpx.Request) -> dict[str, bytes]:
    """Return the parts of a multipart request by name."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + request.content)
    found = {}
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
        found[str(name)] = part.get_payload(decode=True)  # type: ignore[union-attr]
    return found  # type: ignore[return-value]
