"""A real Jupyter server in a process of its own, with the extension enabled and nothing of this user's settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from platform_stand_in import PAGE, TOKEN, WORKSPACE

JUPYTER_TOKEN = "open-sesame"
BASE = "/user/ada/first/"
EXTENSION = Path(__file__).parents[2] / "extensions" / "torpor_lab" / "labextension"
KEPT = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH")


@dataclass(frozen=True)
class Jupyter:
    """Where it answers (the address ends in its base path) and where its notebooks lie."""

    url: str
    folder: Path


def platform_environment(url: str) -> dict[str, str]:
    return {
        "TORPOR_URL": url,
        "TORPOR_WORKSPACE": WORKSPACE,
        "TORPOR_WORKSPACE_NAME": "first",
        "TORPOR_TENANT": "research",
        "TORPOR_PAGE": PAGE,
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_USER": "ada",
    }


@contextmanager
def jupyter(folder: Path, module: str, environment: Mapping[str, str], *arguments: str) -> Iterator[Jupyter]:
    """Yield a server of ``module`` (``jupyter_server`` or ``jupyterlab``) that runs until the block ends."""
    notebooks = folder / "home"
    notebooks.mkdir(parents=True)
    link_extension(folder / "share")
    places = {
        "HOME": str(folder),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "share"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    command = [
        *(sys.executable, "-m", module, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
        *("--ServerApp.port=0", f"--ServerApp.base_url={BASE}", f"--ServerApp.root_dir={notebooks}"),
        *(f"--IdentityProvider.token={JUPYTER_TOKEN}", "--ServerApp.jpserver_extensions={'torpor_lab': True}"),
        *arguments,
    ]
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**kept, **places, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield Jupyter(wait_until_it_answers(process, folder), notebooks)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def link_extension(share: Path) -> None:
    place = share / "labextensions" / "@torpor" / "lab"
    place.parent.mkdir(parents=True)
    place.symlink_to(EXTENSION)


def wait_until_it_answers(process: subprocess.Popen[bytes], folder: Path) -> str:
    deadline = time.monotonic() + 60
    said = folder / "runtime" / f"jpserver-{process.pid}.json"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            url = str(json.loads(said.read_text())["url"])
            if httpx.get(f"{url}api", timeout=5).status_code == 200:
                return url
        except (OSError, ValueError, httpx.HTTPError):
            time.sleep(0.05)
    raise AssertionError(f"Jupyter did not start:\n{(folder / 'server.log').read_text()}")
