"""A workspace's life by the platform: started, filled, asleep, awake on the same node and then on another."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.ground import Nodes, answers, until
from benchmarks.payloads import Payload
from tests.browser.sites import TENANT, USER
from tests.cluster import kubectl
from tests.cluster.site import CONTAINER, ClusterSite

START, SLEEP, SAVED, FROZEN = "start", "sleep", "sleep: until it is saved", "sleep: frozen until then"
WAKE_HERE, WAKE_THERE = "wake, same node", "wake, other node"
ASKS_PER_LOOK = 30
TOLD = re.compile(r"(?P<operation>\S+): saved as .* in (?P<saved>[\d.]+) s, frozen for (?P<frozen>[\d.]+) s")


@dataclass(frozen=True)
class Shape:
    """What a workspace runs, for others to run the same."""

    image: str
    cpu_cores: float
    memory_bytes: int


class Life:
    """One workspace after the other, each of one round.

    ``forget`` is a command that lets nodes drop the images of the repository that is its last argument; empty: none.
    """

    def __init__(self, site: ClusterSite, nodes: Nodes, forget: str) -> None:
        self._site, self._nodes = site, nodes
        self._forget = shlex.split(forget)
        self._client = site.client(USER)
        self._web = httpx.Client(base_url=site.url, timeout=10)
        self._names = 0

    def close(self) -> None:
        """Close its connections."""
        self._client.close()
        self._web.close()

    def look(self) -> Shape:
        """Start a workspace on every node in turn, so that all have the image, and return what one runs."""
        until(self._usable, "the tenant and its profiles are ready")
        found: dict[str, Shape] = {}
        for node in self._nodes.names:
            self._nodes.choose(node)
            key, _ = self._start()
            pod = kubectl.get("pod", key, "-n", self._site.tenant)
            amount = self._status(key)["amount"]
            image = str(pod["spec"]["containers"][0]["image"])
            found[node] = Shape(image, amount["cpu_milli"] / 1000, amount["memory_bytes"])
            self._delete(key)
        return next(iter(found.values()))

    def measure(self, number: int, payload: Payload) -> dict[str, float]:
        """Return the seconds of each step of a workspace's life."""
        here, there = self._nodes.pair(number)
        self._nodes.choose(here)
        key, started = self._start()
        found = {START: started}
        self._fill(key, payload)
        found |= self._sleep(key)
        wakes = [(WAKE_HERE, here), (WAKE_THERE, there)]
        # The first of them begins while the disk is still busy with what the sleep wrote and the node removes.
        first, second = wakes if number // 2 % 2 == 0 else reversed(wakes)
        found |= self._wake_on(key, *first)
        self._sleep(key)
        found |= self._wake_on(key, *second)
        self._delete(key)
        return found

    def _start(self) -> tuple[str, float]:
        """Return a new workspace's id, and the seconds from the wish to its server's answer."""
        self._names += 1
        name = f"round-{self._names}"
        begun = time.perf_counter()
        answer = self._client.post("/workspaces", json={"name": name, "tenant": TENANT, "desired": "running"})
        key = str(_taken(answer)["id"])
        self._await_server(key, name)
        return key, time.perf_counter() - begun

    def _wake_on(self, key: str, way: str, node: str) -> dict[str, float]:
        self._nodes.choose(node)
        os.sync()
        begun = time.perf_counter()
        self._wish(key, "running")
        self._await_server(key, str(self._get(key)["name"]))
        waked_s = time.perf_counter() - begun
        if self._site.node_of(key) != node:
            raise RuntimeError(f"{key} woke on {self._site.node_of(key)}, not on {node}.")
        return {way: waked_s}

    def _sleep(self, key: str) -> dict[str, float]:
        node = self._site.node_of(key)
        self._phase(key, "RUNNING")
        os.sync()
        begun = time.perf_counter()
        self._wish(key, "asleep")
        self._phase(key, "ASLEEP")
        slept_s = time.perf_counter() - begun
        saved_s, frozen_s = self._told(key, node)
        return {SLEEP: slept_s, SAVED: saved_s, FROZEN: frozen_s}

    def _told(self, key: str, node: str) -> tuple[float, float]:
        """Return in how many seconds the node's agent had saved the workspace last, and for how many of them it was frozen."""
        query = "SELECT id FROM operations WHERE workspace_id = ? AND kind = 'sleep' ORDER BY id DESC LIMIT 1"
        operation = self._site.rows(query, key)[0]["id"]
        namespace = f"{self._site.namespace}-agent"
        pods = kubectl.items("pods", "-n", namespace)
        pod = next(each["metadata"]["name"] for each in pods if each["spec"].get("nodeName") == node)
        log = kubectl.run("logs", "-n", namespace, str(pod), "-c", "agent", "--tail=200")
        line = next(found for found in TOLD.finditer(log) if found["operation"] == operation)
        return float(line["saved"]), float(line["frozen"])

    def _fill(self, key: str, payload: Payload) -> None:
        """Put the files into the environment, with the time of now."""
        unpack = ("exec", "-i", "-n", self._site.tenant, key, "-c", CONTAINER, "--", "tar", "-x", "-m")
        with payload.archive.open("rb") as archive:
            subprocess.run(["kubectl", *unpack, "-C", "/opt/workspace/env", "-f", "-"], stdin=archive, check=True)

    def _delete(self, key: str) -> None:
        self._client.delete(f"/workspaces/{key}").raise_for_status()
        until(lambda: self._client.get(f"/workspaces/{key}").status_code == httpx.codes.NOT_FOUND, f"{key} is gone")
        if self._forget:
            repository = f"{self._site.registry}/torpor/workspaces/{TENANT}/{key}"
            subprocess.run([*self._forget, repository], check=True, stdout=subprocess.DEVNULL)

    def _wish(self, key: str, desired: str) -> None:
        _taken(self._client.patch(f"/workspaces/{key}", json={"spec": {"desired": desired}}))

    def _await_server(self, key: str, name: str) -> None:
        """Wait until the server answers; ask now and then whether it still may."""
        asked = itertools.count(1)

        def answered() -> bool:
            if next(asked) % ASKS_PER_LOOK == 0:
                self._status(key)
            return answers(self._web, f"user/{USER}/{name}/api")

        try:
            until(answered, f"the server of {name} answers")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self._status(key)['message']}") from error

    def _phase(self, key: str, phase: str) -> None:
        until(lambda: self._status(key)["phase"] == phase, f"{key} is {phase}")

    def _status(self, key: str) -> dict[str, Any]:
        """Return the workspace's status.

        Raises:
            RuntimeError: when it has failed.
        """
        status = dict(self._get(key)["status"])
        if status["phase"] == "FAILED":
            raise RuntimeError(f"{key}: {status['message']} {status['next_step']}")
        return status

    def _usable(self) -> bool:
        lists = [_taken(self._client.get(path))["items"] for path in ("/profiles", "/tenants")]
        return all(each["status"]["phase"] == "READY" for items in lists for each in items)

    def _get(self, key: str) -> dict[str, Any]:
        return _taken(self._client.get(f"/workspaces/{key}"))


def _taken(answer: httpx.Response) -> dict[str, Any]:
    """Return what an answer holds.

    Raises:
        RuntimeError: with the reason, when the request was refused.
    """
    if answer.is_error:
        raise RuntimeError(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
    return dict(answer.json())
