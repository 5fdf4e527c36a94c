"""The api with the loop for imports on a free port, and real importers as processes beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from cryptography.fernet import Fernet, MultiFernet
from fastapi import FastAPI

from tests.support.installation import seeded
from torpor_hub.api.app import create_app
from torpor_hub.api.context import Parts
from torpor_hub.api.identity import Identities, Identity
from torpor_hub.controllers.base import Leadership, Waker, loop
from torpor_hub.controllers.imports import ImportController
from torpor_hub.processes import ports
from torpor_hub.services.proofs import SecretProofs
from torpor_hub.services.tokens import Signer
from torpor_hub.settings import Settings, load
from torpor_hub.stores import migrations
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed

PROOF = "a proof for tests"
T = TypeVar("T")


class KnownPeople(Identities):
    """Recognises people by tokens that are their names; ``NAME-reader`` may not write."""

    async def of_token(self, token: str) -> Identity:
        if token.startswith("torpor."):
            return await super().of_token(token)
        return Identity(token.removesuffix("-reader"), not token.endswith("-reader"))


def until(look: Callable[[], T | None], within_s: float = 20) -> T:
    """Return what ``look`` finds, once it finds something."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s")


def free_port() -> int:
    """Return a port that nothing listens on, and that no connection takes meanwhile."""
    return ports.choose("127.0.0.1")


class Platform:
    """A running api."""

    def __init__(self, settings: Settings, file: Path, parts: Parts) -> None:
        self.settings, self.file, self.parts = settings, file, parts
        self.blobs = parts.blobs
        self.data = settings.data_dir
        self._client = httpx.Client(base_url=settings.api_url, timeout=30, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def send(self, name: str, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {name}", **arguments.pop("headers", {})}
        return self._client.request(method, path, headers=headers, **arguments)

    @contextmanager
    def stream(self, name: str, path: str) -> Iterator[httpx.Response]:
        headers = {"Authorization": f"Bearer {name}"}
        # A connection of its own: one that breaks off must not be used again.
        with (
            httpx.Client(base_url=self.settings.api_url, timeout=30, trust_env=False) as client,
            client.stream("GET", path, headers=headers) as answer,
        ):
            yield answer

    def register(self, name: str, path: str, source: str = "files") -> dict[str, Any]:
        body = {"name": name, "tenant": "research", "source": source, "path": path}
        answer = self.send("ada", "POST", "/datasets", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def source(self, name: str, folder: Path) -> None:
        body = {"name": name, "tenant": "research", "kind": "files", "spec": {"root": str(folder)}}
        answer = self.send("ada", "POST", "/sources", json=body)
        assert answer.status_code == 201, answer.text

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        return dict(self.send("ada", "GET", f"/datasets/{dataset_id}").json())

    def ended(self, dataset_id: str, within_s: float = 20) -> dict[str, Any]:
        """Return the dataset once its import has ended."""

        def look() -> dict[str, Any] | None:
            found = self.dataset(dataset_id)
            return found if found["status"]["phase"] != "IMPORTING" else None

        return until(look, within_s)

    def importer_token(self) -> str:
        """Return a token as an importer gets it."""
        body = {"component": "importer", "proof": PROOF}
        return str(self.send("nobody", "POST", "/component-tokens", json=body).json()["token"])

    def importer(self, failpoints: Path | None = None) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Give a running importer."""
        return importer(self.file, failpoints=failpoints)


@contextmanager
def importer(
    file: Path, *, failpoints: Path | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Give a running importer with these settings; ``log`` takes what it says."""
    environment = {**os.environ, **({"TORPOR_FAILPOINTS": str(failpoints)} if failpoints else {})}
    command = [sys.executable, "-P", "-m", "torpor_hub.programs.importer", "--settings", str(file)]
    output = log.open("wb") if log else None
    process = subprocess.Popen(command, env=environment, stderr=output)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)
        if output is not None:
            output.close()


@contextmanager
def platform(file: Path) -> Iterator[Platform]:
    """Give a running platform with the first records and a source ``files`` over its data folder."""
    settings = load(file)
    migrations.upgrade(settings.database)
    store = Store(settings.database)
    seeded(store, settings)
    parts = _parts(settings, store)
    app = create_app(parts, lifespan=lambda app: _living(app, parts))
    config = uvicorn.Config(app, port=settings.server.port, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    running = Platform(settings, file, parts)
    try:
        until(lambda: server.started)
        running.source("files", running.data)
        yield running
    finally:
        running.close()
        server.should_exit = True
        thread.join(10)


def settings_file(state_dir: Path, limits: dict[str, float]) -> Path:
    """Return a new settings file over a new state folder."""
    (state_dir / "secrets").mkdir(parents=True)
    (state_dir / "data").mkdir()
    (state_dir / "secrets" / "importer-proof").write_text(PROOF)
    (state_dir / "secrets" / "demo-proof").write_text(PROOF)
    lines = [f'state_dir = "{state_dir}"', *(f"{name}.port = {free_port()}" for name in ("server", "hub", "proxy"))]
    lines += [f"proxy_api.port = {free_port()}", *(f"limits.{name} = {value}" for name, value in limits.items())]
    file = state_dir / "settings.toml"
    file.write_text("\n".join(lines))
    return file


def _parts(settings: Settings, store: Store) -> Parts:
    signer = Signer("a key of more than thirty-two characters")
    proofs = SecretProofs({"importer": PROOF, "demo": PROOF})
    cookies = MultiFernet([Fernet(Fernet.generate_key())])
    identities = KnownPeople("http://127.0.0.1:9/", signer, cookies, cache_s=0, origin=settings.public_url)
    return Parts(settings, store, Blobs(settings.blobs), signer, identities, ChangeFeed(store), proofs)


async def _living(_app: FastAPI, parts: Parts) -> AsyncIterator[None]:
    parts.feed.start()
    lead = Leadership(parts.store, lifetime_s=parts.settings.limits.lease_s)
    controller = ImportController(parts.store, parts.settings, lead)
    work = [lead.keep(), loop("imports", controller.turn, Waker(parts.feed, ("import", "read")), lead)]
    tasks = [asyncio.create_task(part) for part in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        parts.feed.stop()
        parts.store.close()
