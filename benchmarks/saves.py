"""What a sleep is compared with: the same files in a container that is committed and pushed, and in a compressed archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.ground import RUN
from benchmarks.payloads import Payload
from benchmarks.sleep_path import PEER
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address

ARCHIVE = "tar | zstd -1 -T2"
REPOSITORY = f"torpor-benchmark/{RUN}"
# The verb that makes a container of an image and starts nothing. Both programs commit with the same library.
ENGINES = {"podman": "create", "buildah": "from"}
PLAIN = "--tls-verify=false"


def commit_way() -> str:
    """Return the name of the way by `commit` with the program that is here."""
    return f"{_engine()} commit + push"


class Commit:
    """A container of the workspace's own image, never started: it is filled through its mount, committed and pushed."""

    def __init__(self, image: str, registry: str) -> None:
        self._engine, self._image, self._host = _engine(), image, registry
        self._registry = Registry(Address(registry, insecure=True))

    def close(self) -> None:
        """Close its connections, and give back the workspace's image."""
        self._registry.close()
        subprocess.run([self._engine, "rmi", self._image], check=False, capture_output=True)

    def measure(self, folder: Path, payload: Payload) -> dict[str, float]:
        """Return the seconds of commit and push; the registry forgets the image afterwards."""
        container = self._run(ENGINES[self._engine], "-q", PLAIN, self._image)
        name, digest = f"{self._host}/{REPOSITORY}:last", folder / "digest"
        try:
            self._fill(container, payload)
            os.sync()
            begun = time.perf_counter()
            self._run("commit", "-q", container, name)
            self._run("push", "-q", PLAIN, f"--digestfile={digest}", name)
            took_s = time.perf_counter() - begun
        finally:
            self._run("rm", container)
        self._run("rmi", name)
        self._registry.delete_manifest(REPOSITORY, digest.read_text().strip())
        return {commit_way(): took_s}

    def _fill(self, container: str, payload: Payload) -> None:
        folder = Path(self._run("mount", container), "opt/workspace/env")
        subprocess.run(["tar", "-x", "-m", "-C", str(folder), "-f", str(payload.archive)], check=True)

    def _run(self, *arguments: str) -> str:
        ended = subprocess.run([self._engine, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        return ended.stdout.strip()


def archive(folder: Path, payload: Payload) -> dict[str, float]:
    """Return the seconds of a compressed archive of the same files, on this machine's disk."""
    target = folder / "archive.tar.zst"
    os.sync()
    begun = time.perf_counter()
    subprocess.run(["bash", "-euo", "pipefail", "-c", PEER, "bash", str(payload.tree), str(target)], check=True)
    took_s = time.perf_counter() - begun
    target.unlink()
    return {ARCHIVE: took_s}


def _engine() -> str:
    return next(name for name in ENGINES if shutil.which(name))
