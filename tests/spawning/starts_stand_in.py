"""A stand-in for the platform's api: sign-ins, component tokens, starts and wishes, scripted by the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from torpor_hub.domain import ids
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.processes import layering

API = "services/torpor/api/v1"
Answer = tuple[int, dict[str, Any]]


def problem(status: int, code: str, detail: str, next_step: str = "") -> Answer:
    return status, {"status": status, "code": code, "detail": detail, "next_step": next_step}


class StartsApi:
    """``before`` scripts the answers to a workspace's next requests to start; then it is granted."""

    def __init__(
        self, state_dir: Path, base_path: str, proof: str, passwords: dict[str, str], admins: set[str]
    ) -> None:
        self.state_dir, self.prefix, self.proof = state_dir, base_path + API, proof
        self.passwords, self.admins = passwords, admins
        self.tokens: set[str] = set()
        self.token_lifetime = timedelta(minutes=15)
        self.before: dict[str, list[Answer]] = {}
        self.environment: dict[str, dict[str, str]] = {}
        self.runs: dict[str, WorkspaceRun] = {}
        self.asked: list[dict[str, Any]] = []
        self.wishes: list[tuple[str, str]] = []
        self.on_wish: Callable[[WorkspaceRun], None] = lambda run: None
        self.phases: dict[str, tuple[str, str, bool]] = {}
        self.words: dict[str, dict[str, str]] = {}
        self.away = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> Answer:
        if not path.startswith(self.prefix):
            return 200, {}
        if self.away:
            return problem(503, "unavailable", "The database is being upgraded.", "Wait a minute.")
        kind, _, rest = path.removeprefix(self.prefix + "/").partition("/")
        if kind == "component-tokens":
            return self._issue(body)
        if token not in self.tokens:
            return problem(401, "unauthenticated", "No token of this api.")
        if kind == "sign-ins":
            return self._sign_in(body)
        if kind == "workspace-starts":
            return self._start(body)
        return self._workspace(method, rest, body)

    def _issue(self, body: dict[str, Any]) -> Answer:
        if body != {"component": "hub", "proof": self.proof}:
            return problem(403, "forbidden", "Wrong proof.")
        token = ids.new("tok")
        self.tokens.add(token)
        return 200, {"token": token, "expires_at": (datetime.now(UTC) + self.token_lifetime).isoformat()}

    def _sign_in(self, body: dict[str, Any]) -> Answer:
        if not body["password"] or self.passwords.get(body["name"]) != body["password"]:
            return problem(403, "forbidden", "Name or password is wrong.")
        return 200, {"name": body["name"], "admin": body["name"] in self.admins}

    def _start(self, body: dict[str, Any]) -> Answer:
        self.asked.append(body)
        scripted = self.before.get(body["server"], [])
        if scripted:
            return scripted.pop(0)
        run = self.runs.get(body["server"]) or self.new_run(body["user"], body["server"])
        until = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        return 200, {"grant": {"id": run.grant_id, "expires_at": until, "run": run.to_json(), "notice": ""}}

    def new_run(self, user: str, server: str) -> WorkspaceRun:
        workspace_id = ids.new("ws")
        root, home = self.state_dir / "workspaces" / workspace_id, self.state_dir / "homes" / "research" / user
        for folder in (root, home):
            folder.mkdir(parents=True, exist_ok=True)
        layering.create(root / "env", layering.here())
        layering.configure(root, layering.here())
        self.runs[server] = WorkspaceRun(
            workspace_id=workspace_id,
            grant_id=ids.new("gr"),
            name=server,
            tenant="research",
            user=user,
            profile="small",
            amount=Amount(1000, 2 << 30),
            root_dir=str(root),
            home_dir=str(home),
            environment={"TORPOR_WORKSPACE": workspace_id} | self.environment.get(server, {}),
        )
        return self.runs[server]

    def _workspace(self, method: str, workspace_id: str, body: dict[str, Any]) -> Answer:
        run = next((run for run in self.runs.values() if run.workspace_id == workspace_id), None)
        if run is None:
            return problem(404, "not_found", "There is no such workspace.")
        if method == "PATCH":
            self.wishes.append((run.name, body["spec"]["desired"]))
            self.phases[workspace_id] = ("SLEEPING", "asleep", True)
            threading.Thread(target=self.on_wish, args=(run,), daemon=True).start()
        phase, desired, operating = self.phases.get(workspace_id, ("RUNNING", "running", False))
        status = {"phase": phase, "operation": {} if operating else None} | self.words.get(workspace_id, {})
        return 200, {"spec": {"desired": desired}, "status": status}


class _Handler(BaseHTTPRequestHandler):
    api: StartsApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        status, content = self.api.answer(self.command, self.path, token, body)
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_POST = do_PATCH = do_GET  # noqa: N815 - the standard library's names

    def log_message(self, *_: object) -> None:
        return None
