"""The api's routes, the controller's loop for jobs and real processes, in one test process; the hub alone is missing."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import uvicorn
from cryptography.fernet import Fernet, MultiFernet

from tests.jobs.job_controller import KEY, Controller, process_runner
from tests.support.installation import seeded, settings_in
from torpor_hub.api.app import create_app
from torpor_hub.api.context import Parts
from torpor_hub.api.identity import Identities, Identity
from torpor_hub.domain.units import Amount
from torpor_hub.processes import ports
from torpor_hub.runners.base import Runner
from torpor_hub.services.proofs import SecretProofs
from torpor_hub.services.tokens import PREFIX, Signer
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed

GIB = 1024**3
PROOF, PROGRAMS = "a proof for tests", ("importer", "demo")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


class People(Identities):
    """Takes a person's name for a token; tokens of attempts are checked as always."""

    async def of_token(self, token: str) -> Identity:
        return await super().of_token(token) if token.startswith(PREFIX) else Identity(token, can_write=True)


def free_port(host: str) -> int:
    """Return a port that nothing listens on, and that no connection takes meanwhile."""
    return ports.choose(host)


class Api:
    """The api on its port; can be away for a while."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._address = parts.settings.server
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        config = uvicorn.Config(
            create_app(self._parts),
            host=self._address.host,
            port=self._address.port,
            log_level="warning",
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)


class JobPlatform:
    """Everything that a job needs, and short ways to ask."""

    patience_s = 40.0

    def __init__(
        self,
        state: Path,
        store: Store,
        *,
        host: str = "127.0.0.1",
        make_runner: Callable[[Settings], Runner] = process_runner,
        **settings: Any,
    ) -> None:
        self._clients: dict[str, httpx.Client] = {}
        self.settings = settings_in(state, server={"host": host, "port": free_port(host)}, **settings)
        secrets = self.settings.state_dir / "secrets"
        secrets.mkdir(parents=True)
        for program in PROGRAMS:
            (secrets / f"{program}-proof").write_text(PROOF)
        self.store = store
        self._make_runner = make_runner
        seeded(store, self.settings, Amount(8000, 16 * GIB))
        self.blobs = Blobs(self.settings.blobs)
        self.signer = Signer(KEY)
        self.feed = ChangeFeed(store)
        self.feed.start()
        people = People("", self.signer, MultiFernet([Fernet(Fernet.generate_key())]), cache_s=0, origin="")
        proofs = SecretProofs(dict.fromkeys(PROGRAMS, PROOF))
        parts = Parts(self.settings, store, self.blobs, self.signer, people, self.feed, proofs)
        self.api = Api(parts)
        self.api.start()
        self.controller = self.new_controller()

    def new_controller(self) -> Controller:
        self.controller = Controller(self.settings, self.store, self.blobs, self.signer, self.feed, self._make_runner)
        return self.controller

    def close(self) -> None:
        self.controller.end(orderly=True)
        for client in self._clients.values():
            client.close()
        self.api.stop()
        self.feed.stop()

    def client(self, who: str = "ada") -> httpx.Client:
        if who not in self._clients:
            headers = {"Authorization": f"Bearer {who}"}
            self._clients[who] = httpx.Client(base_url=self.settings.api_url, headers=headers, timeout=20)
        return self._clients[who]

    def submit(self, who: str = "ada", *, bundle: bytes | None = None, key: str = "", **spec: Any) -> httpx.Response:
        amount = {"cpu_milli": 1000, "memory_bytes": GIB}
        files: dict[str, Any] = {
            "spec": (None, json.dumps({"name": "job", "kind": "command", "amount": amount, **spec}), "application/json")
        }
        if bundle is not None:
            files["bundle"] = ("bundle.pkl", bundle, "application/octet-stream")
        headers = {"Idempotency-Key": key} if key else {}
        return self.client(who).post("/jobs", files=files, headers=headers)

    def command(self, *argv: str, **spec: Any) -> str:
        answer = self.submit(code={"type": "command", "argv": list(argv)}, **spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def function(self, bundle: bytes, **spec: Any) -> str:
        sha256 = hashlib.sha256(bundle).hexdigest()
        version = cloudpickle.__version__
        code = {"type": "function", "name": "main", "python": PYTHON, "cloudpickle": version, "sha256": sha256}
        answer = self.submit(bundle=bundle, code=code, **spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def get(self, path: str, who: str = "ada", **params: Any) -> httpx.Response:
        return self.client(who).get(path, params=params)

    def status(self, job: str) -> dict[str, Any]:
        status: dict[str, Any] = self.get(f"/jobs/{job}").json()["status"]
        return status

    def log(self, job: str, **params: Any) -> str:
        return self.get(f"/jobs/{job}/log", **params).text

    def cancel(self, job: str) -> httpx.Response:
        return self.client().patch(f"/jobs/{job}", json={"spec": {"desired": "cancelled"}})

    def wait(self, job: str, condition: Callable[[dict[str, Any]], bool], within_s: float = 0) -> dict[str, Any]:
        deadline = time.monotonic() + (within_s or self.patience_s)
        while not condition(status := self.status(job)):
            assert time.monotonic() < deadline, f"still {status}; {self.log(job)!r}"
            time.sleep(0.1)
        return status

    def ended(self, job: str) -> dict[str, Any]:
        return self.wait(job, lambda status: status["phase"] in FINAL)

    def used(self, tenant: str = "research") -> dict[str, Any]:
        items = self.get("/tenants").json()["items"]
        return next(item["status"] for item in items if item["name"] == tenant)

    def freed(self) -> bool:
        deadline = time.monotonic() + 20
        while self.used()["jobs"]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True
