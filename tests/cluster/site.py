"""The platform on the test cluster, as the test of the whole path sees it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.browser.sites import TENANT, USER, Seen
from tests.cluster import kubectl
from tests.support import hub
from tests.support.platform import until

CONTAINER = "workspace"
HOME, DATA = "/home/user", "/data"
UID = 1000
# The top folder, in which every start makes the points of its mounts, and the points of a workspace's own volumes.
NOT_ENVIRONMENT = ("/", HOME, DATA, "/opt/workspace/runtime", "/opt/workspace/logs")
POD_WITHIN_S, LISTED_WITHIN_S = 120, 300
# An image's Debian and Python alone are more: a lister that cannot look into folders would find two trees of nothing equal.
FEWEST_ENTRIES = 5000
# Ends the kernels as a person does, by the server's own interface, so that it does not start them anew.
END_KERNELS = """
import json, os, urllib.request
base = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
def ask(method, path):
    headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}
    request = urllib.request.Request("http://127.0.0.1:8888" + base + path, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=30).read()
for kernel in json.loads(ask("GET", "api/kernels")):
    ask("DELETE", "api/kernels/" + kernel["id"])
"""


@dataclass
class ClusterSite:
    """A release of the chart. ``namespace`` is the platform's own; that of a tenant is ``prefix`` and its name.

    The names of the release's own objects begin with ``fullname``.
    """

    url: str
    namespace: str
    prefix: str
    registry: str
    passwords: dict[str, str]
    fullname: str
    names: dict[str, str] = field(default_factory=dict)
    fewest_entries: int = FEWEST_ENTRIES
    cordoned: list[str] = field(default_factory=list)

    @property
    def tenant(self) -> str:
        """The namespace of the user's tenant."""
        return f"{self.prefix}{TENANT}"

    @property
    def api(self) -> str:
        """The public address of the api."""
        return f"{self.url}services/torpor/api/v1"

    def token(self, user: str) -> str:
        """Return a hub token of the user."""
        return hub.token(self.url, user, self.passwords[user])

    def signed_in(self, user: str) -> AbstractContextManager[httpx.Client]:
        """Give a client with the cookies of the user's browser, below the public address."""
        return hub.signed_in(self.url, user, self.passwords[user])

    def client(self, user: str) -> httpx.Client:
        """Return a client of the api for the user."""
        return httpx.Client(base_url=self.api, headers={"Authorization": f"Bearer {self.token(user)}"}, timeout=60)

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Return rows of the database, read from the volume beside the platform."""
        file = kubectl.volume(self.namespace, f"{self.fullname}-server") / "torpor.sqlite"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=15)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def workspace(self, name: str) -> str:
        """Return a workspace's id."""
        return str(self.rows("SELECT id FROM workspaces WHERE name = ?", name)[0]["id"])

    def held(self) -> list[str]:
        """Return the subjects of all reservations that are held now."""
        rows = self.rows("SELECT subject_id FROM reservations WHERE held_until IS NULL ORDER BY subject_id")
        return [str(row["subject_id"]) for row in rows]

    def put_home(self, name: str, content: bytes) -> str:
        """Write a file into the user's home, as an upload would; return its path as notebooks see it."""
        user = str(self.rows("SELECT id FROM users WHERE name = ?", USER)[0]["id"])
        file = kubectl.volume(self.tenant, f"home-{user}") / name
        file.write_bytes(content)
        os.chown(file, UID, UID)
        return f"{HOME}/{name}"

    def data(self, name: str) -> tuple[Path, str]:
        """Return a folder of data as this machine sees it, and as a source names it."""
        folder = kubectl.volume(self.namespace, f"{self.fullname}-data") / name
        folder.mkdir(exist_ok=True)
        os.chown(folder, UID, UID)
        return folder, f"{DATA}/{name}"

    @contextmanager
    def sleeping(self, workspace: str) -> Iterator[Seen]:
        """Give the tree just before the sleep, with no kernel running."""
        exec_in = ("exec", "-i", "-n", self.tenant, workspace, "-c", CONTAINER, "--")
        kubectl.run(*exec_in, "/opt/torpor/bin/python", "-I", "-", stdin=END_KERNELS)
        self.names["node"] = kubectl.get("pod", workspace, "-n", self.tenant)["spec"]["nodeName"]
        yield Seen(_environment(kubectl.tree(self.tenant, workspace, CONTAINER)))

    @contextmanager
    def waking(self, workspace: str) -> Iterator[Seen]:
        """Give the tree of the image on another node, as the only process there sees it; the workspace wakes there too."""
        slept_on = self.names["node"]
        other = next(name for name in self.nodes() if name != slept_on)
        image = self._image(workspace)
        kubectl.run("cordon", slept_on)
        self.cordoned.append(slept_on)
        kubectl.apply(kubectl.listing_pod(self.tenant, "bare", image, other))
        tree = kubectl.listed(self.tenant, "bare", LISTED_WITHIN_S)
        kubectl.run("delete", "pod", "bare", "-n", self.tenant, "--grace-period=0", "--force")
        yield Seen(_environment(tree))
        until(lambda: self.node_of(workspace) == other, POD_WITHIN_S, f"the workspace wakes on {other}")
        self.uncordon()

    def left(self, workspace: str) -> list[str]:
        """Return the pods of a workspace that sleeps."""
        pods = kubectl.items("pods", "-n", self.tenant, "-l", f"torpor/workspace={workspace}")
        return [str(pod["metadata"]["name"]) for pod in pods]

    def nodes(self) -> list[str]:
        """Return the names of the nodes."""
        return [str(node["metadata"]["name"]) for node in kubectl.items("nodes")]

    def node_of(self, workspace: str) -> str:
        """Return the node of a workspace's pod; empty while there is none."""
        pods = kubectl.items("pods", "-n", self.tenant, "-l", f"torpor/workspace={workspace}")
        return str(pods[0]["spec"].get("nodeName", "")) if pods else ""

    def uncordon(self) -> None:
        """Let pods onto all nodes again."""
        while self.cordoned:
            kubectl.run("uncordon", self.cordoned.pop())

    def _image(self, workspace: str) -> str:
        query = "SELECT c.repository, c.digest FROM checkpoints c JOIN workspaces w ON w.checkpoint_id = c.id WHERE w.id = ?"
        row = self.rows(query, workspace)[0]
        return f"{self.registry}/{row['repository']}@{row['digest']}"


def _environment(tree: dict[str, Any]) -> dict[str, Any]:
    return {path: entry for path, entry in tree.items() if path not in NOT_ENVIRONMENT}
