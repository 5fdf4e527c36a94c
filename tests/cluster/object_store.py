"""An S3 store of a test's own on this machine, which pods reach: SeaweedFS, one process, a folder under /tmp."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError

from tests.support.platform import free_port

WEED = Path(sys.executable).with_name("weed")
READY_WITHIN_S = 60.0
# What one process serves: each part has a port for HTTP and one for the other parts.
PARTS = ("master", "volume", "filer", "s3")
SMALL = ("-master.volumeSizeLimitMB=64", "-volume.max=8", "-s3.port.iceberg=0", "-s3.port.lance=0")


@dataclass(frozen=True)
class ObjectStore:
    """A running store with one bucket, and the account that may do all there."""

    endpoint: str
    bucket: str = "notebooks"
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret: str = field(default_factory=lambda: secrets.token_hex(16))

    def objects(self, folder: str) -> dict[str, bytes]:
        """Return what lies in a folder of the bucket, by key below it, asked with no cache."""
        system, root = self.open(), f"{self.bucket}/{folder}"
        return {path.removeprefix(f"{root}/"): bytes(system.cat_file(path)) for path in system.find(root)}

    def open(self) -> Any:
        """Return the store as a file system that remembers nothing."""
        return s3fs.S3FileSystem(
            key=self.key,
            secret=self.secret,
            endpoint_url=self.endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@contextmanager
def running(folder: Path, host: str) -> Iterator[ObjectStore]:
    """Give a store that keeps its files in ``folder`` and answers at this address of the machine."""
    ports = {name: free_port() for part in PARTS for name in (f"{part}.port", f"{part}.port.grpc")}
    store = ObjectStore(f"http://{host}:{ports['s3.port']}")
    accounts, log = folder / "accounts.json", folder / "log"
    credentials = [{"accessKey": store.key, "secretKey": store.secret}]
    accounts.write_text(
        json.dumps({"identities": [{"name": "torpor", "credentials": credentials, "actions": ["Admin"]}]})
    )
    command = [
        str(WEED),
        "-logtostderr=true",
        "server",
        f"-dir={folder}",
        f"-ip={host}",
        "-s3",
        f"-s3.config={accounts}",
    ]
    command += [*SMALL, *(f"-{name}={port}" for name, port in ports.items())]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        _make_bucket(store, process, log)
        yield store
    finally:
        process.kill()
        process.wait()


def _make_bucket(store: ObjectStore, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the bucket, and wait until the store takes and gives an object."""
    deadline, probe = time.monotonic() + READY_WITHIN_S, f"{store.bucket}/probe"
    while True:
        try:
            system = store.open()
            if not system.exists(store.bucket):
                system.mkdir(store.bucket)
            system.pipe_file(probe, b"here")
            system.rm_file(probe)
        except (OSError, BotoCoreError) as error:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, f"{error!r}\n{log.read_text()[-2000:]}"
            time.sleep(0.5)
        else:
            return
