"""What images are made from, made from the checkout: Torpor's wheel with the built extension, the proxy's modules, uv."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from images.engines import Secrets
from images.plan import Sources, Step

PYTHON = "3.11"
# Settings of uv and of requests in general, and pip's names for the same.
NETWORK = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INSECURE_HOST"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
PIP = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX"}
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")


class SourcesFailed(Exception):
    """Something that images are made from could not be made; the text says what was printed last."""


def prepare(root: Path, cache: Path) -> Sources:
    """Return what images are made from, after bringing the checkout's own installation up to date.

    Raises:
        SourcesFailed: when the installation or the wheel cannot be made.
    """
    _call([sys.executable, "bootstrap.py", "platform"], root)
    wheels = cache / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    _call([str(root / ".venv/bin/python"), "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)], root)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return Sources(
        root=root,
        wheel=next(wheels.glob("*.whl")),
        uv=root / ".venv/bootstrap/uv/bin/uv",
        node_modules=root / "hub/node/node_modules",
        python=PYTHON,
        platform=project["version"],
    )


@contextmanager
def context_of(step: Step, cache: Path) -> Iterator[Path]:
    """Yield a folder that holds exactly what ``step`` reads, while the block runs."""
    with tempfile.TemporaryDirectory(dir=cache) as name:
        for place, source in step.context.items():
            target = Path(name, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy2(source, target)
        yield Path(name)


@contextmanager
def secrets(cache: Path, environ: Mapping[str, str]) -> Iterator[Secrets]:
    """Yield the files by which a build reaches the package index as this machine does, while the block runs."""
    with tempfile.TemporaryDirectory(dir=cache) as name:
        network, certificates = Path(name, "network"), Path(name, "certificates")
        for file in (network, certificates):
            file.touch(0o600)
        network.write_text(network_settings(environ))
        bundle = next((environ[name] for name in CERTIFICATES if environ.get(name)), "")
        if bundle and Path(bundle).is_file():
            certificates.write_bytes(Path(bundle).read_bytes())
        yield Secrets(network, certificates)


def network_settings(environ: Mapping[str, str]) -> str:
    """Return the lines of a shell that set what ``environ`` says of indexes and proxies; uv's own names win over pip's."""
    found = {own: environ[pip] for pip, own in PIP.items() if environ.get(pip)}
    found |= {name: environ[name] for name in NETWORK if environ.get(name)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.items())


def _call(command: list[str], folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SourcesFailed(f"{ended.stdout}{ended.stderr}\n`{' '.join(command)}` ended with {ended.returncode}.")
