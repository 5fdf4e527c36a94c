"""The proxy as a program of its own: it runs configurable-http-proxy, and has the hub give it its routes each time it comes up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.support.platform import free_port
from torpor_hub.supervisor.services import _proxy_program

WITHIN_S = 60.0
TOKENS = {"proxy-auth-token": "for-the-proxy", "hub-supervisor-token": "for-the-hub"}


class Hub(ThreadingHTTPServer):
    """Takes the calls that ask a hub to give the proxy its routes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.called = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        self.server.calls.append((self.path, self.headers["Authorization"]))
        self.send_response(200)
        self.end_headers()
        self.server.called.release()

    def log_message(self, *_: object) -> None:
        """Keep the test's output free of requests."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.shutdown()
    made.server_close()


class Proxy:
    """The program with its settings, as often as it is started."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.port, self.control = free_port(), free_port()
        self._file = folder / "torpor.toml"
        ports = {"server": 1, "hub": hub.server_port, "proxy": self.port, "proxy_api": self.control}
        lines = [f'state_dir = "{folder}"', *(f"{name}.port = {port}" for name, port in ports.items())]
        self._file.write_text("\n".join(lines))
        (folder / "secrets").mkdir()
        for name, token in TOKENS.items():
            (folder / "secrets" / name).write_text(token)
        programs = folder / "bin"
        programs.mkdir()
        node, script = _proxy_program()
        command = programs / "configurable-http-proxy"
        command.write_text(f'#!/bin/sh\nexec "{node}" "{script}" "$@"\n')
        command.chmod(0o755)
        self._environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "torpor_hub.programs.proxy", "--settings", str(self._file)]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/_chp_healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def proxy(tmp_path: Path, hub: Hub) -> Proxy:
    return Proxy(tmp_path, hub)


def test_each_start_asks_the_hub_for_routes_once_the_proxy_answers(proxy: Proxy, hub: Hub) -> None:
    for start in (1, 2):
        running = proxy.start()
        try:
            assert hub.called.acquire(timeout=WITHIN_S)
            assert proxy.answers()
            assert hub.calls == [("/hub/api/proxy", "token for-the-hub")] * start
        finally:
            running.terminate()
        running.wait(WITHIN_S)
        assert not proxy.answers(), "nothing of it is left"


def test_the_control_address_is_closed_to_who_has_no_token(proxy: Proxy, hub: Hub) -> None:
    running = proxy.start()
    try:
        assert hub.called.acquire(timeout=WITHIN_S)
        url = f"http://127.0.0.1:{proxy.control}/api/routes"
        assert httpx.get(url, trust_env=False).status_code == 403
        held = {"Authorization": f"token {TOKENS['proxy-auth-token']}"}
        assert httpx.get(url, headers=held, trust_env=False).status_code == 200
    finally:
        running.terminate()
        running.wait(WITHIN_S)


def test_it_ends_when_the_proxy_itself_ends(proxy: Proxy, hub: Hub) -> None:
    running = proxy.start()
    assert hub.called.acquire(timeout=WITHIN_S)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert running.wait(WITHIN_S) != 0


def test_a_secret_that_is_missing_is_one_sentence(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "hub-supervisor-token").unlink()
    command = [sys.executable, "-m", "torpor_hub.programs.proxy", "--settings", str(tmp_path / "torpor.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("torpor-proxy: The secret 'hub-supervisor-token'")
    assert len(ended.stderr.splitlines()) == 1
