"""What has to be true of a cluster after faults, read from pods, freezers, the registry and the database itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import kubectl
from tests.cluster.cluster_people import Resident, Town, seconds
from tests.cluster.cluster_storm import Death
from tests.faults.oracles import unsettled
from tests.support.platform import until

Json = dict[str, Any]
FREEZERS = Path("/sys/fs/cgroup/freezer/torpor-kube")
LEASES = Path("/run/torpor")
USERS_CODE = "app.kubernetes.io/component in (workspace,job)"
AGAIN_S = 0.2
ACCEPT = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Pod:
    """One pod, from when it was first seen until it was gone."""

    uid: str
    name: str
    component: str
    ready: bool = False
    ended: str = ""
    gone: bool = False


@dataclass
class PodHistory:
    """Every pod of users' code in some namespaces, followed beside the platform, also while nobody looks."""

    namespaces: Collection[str]
    pods: dict[str, Pod] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _process: subprocess.Popen[str] | None = None
    _follower: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Follow no more."""
        self._over.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _follow(self) -> None:
        command = ["kubectl", "get", "pods", "-A", "-l", USERS_CODE, "-w", "--output-watch-events", "-o", "json"]
        while not self._over.is_set():
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert self._process.stdout is not None
            text = ""
            for line in self._process.stdout:
                text += line
                # One version of kubectl prints an event in one line, another in many.
                with contextlib.suppress(json.JSONDecodeError):
                    self._take(json.loads(text))
                    text = ""
            self._over.wait(AGAIN_S)

    def look(self) -> None:
        """Take for gone what a live list has no longer: its end may have fallen between two watches.

        Raises:
            AssertionError: where no pod was ever seen, or none is followed any more, so that nothing would be found wrong.
        """
        assert self._follower is not None and self._follower.is_alive(), "pods are followed no more"
        assert self.pods, "no pod was followed: nothing can be said of any"
        known = list(self.pods.values())
        there = {str(pod["metadata"]["uid"]) for pod in kubectl.items("pods", "-A", "-l", USERS_CODE)}
        for pod in known:
            pod.gone |= pod.uid not in there

    def _take(self, event: Json) -> None:
        if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return  # the API server speaks of the watch, not of a pod
        thing = event["object"]
        meta = thing["metadata"]
        if meta["namespace"] not in self.namespaces:
            return
        component = meta["labels"]["app.kubernetes.io/component"]
        pod = self.pods.setdefault(meta["uid"], Pod(meta["uid"], meta["name"], component))
        conditions = thing.get("status", {}).get("conditions") or ()
        pod.ready |= any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        if thing.get("status", {}).get("phase") in ("Failed", "Succeeded") and "deletionTimestamp" not in meta:
            pod.ended = str(thing["status"].get("containerStatuses", [{}])[0].get("state"))
        pod.gone |= event["type"] == "DELETED"


def settles(town: Town, within_s: float) -> None:
    """Wait until the records say that nothing is under way; say what is, at the end."""
    try:
        until(lambda: not unsettled(town), within_s, "a settled platform")
    except AssertionError as error:
        pods = [kubectl.run("get", "pods", "-n", namespace, "-o", "wide") for namespace in town.namespaces()]
        raise AssertionError("\n".join([f"{error}: {unsettled(town)}", *pods])) from error


def nothing_is_wrong(town: Town, history: PodHistory, deaths: Collection[Death], within_s: float) -> None:
    """Wait until nothing is under way and nothing is to be counted, both within ``within_s``, and count at the end."""
    deadline = time.monotonic() + within_s
    settles(town, within_s)
    with contextlib.suppress(AssertionError):
        until(lambda: not counted(town, history, deaths), deadline - time.monotonic(), "nothing is wrong")
    assert counted(town, history, deaths) == {}


def counted(town: Town, history: PodHistory, deaths: Collection[Death]) -> dict[str, list[str]]:
    """Return everything that should not be, by its kind; ``deaths`` are the pods that the test itself has ended."""
    history.look()
    found = {
        "healthy workspaces stopped": healthy_stopped(town, history, deaths),
        "frozen leftovers": frozen(history) + leases(town),
        "orphan pods": orphans(town),
        "leaked reservations": leaked(town),
        "damaged checkpoints": list(damaged(town)),
    }
    return {kind: rows for kind, rows in found.items() if rows}


def healthy_stopped(town: Town, history: PodHistory, deaths: Collection[Death]) -> list[str]:
    """Return workspaces' pods that answered once and are gone, or ended, and that neither a sleep nor the test has removed."""
    asleep = {
        row["handle"] for row in town.rows("SELECT handle FROM operations WHERE kind = 'sleep' AND step = 'DONE'")
    }
    ours = {death.uid for death in deaths}
    seen = [pod for pod in list(history.pods.values()) if pod.component == "workspace" and pod.ready]
    return [
        f"{pod.name} ({pod.uid}) {pod.ended or 'is gone'}"
        for pod in seen
        if (pod.gone or pod.ended) and pod.uid not in asleep | ours
    ]


def frozen(history: PodHistory) -> list[str]:
    """Return the freezers of these pods that hold something still."""
    states = [file for file in FREEZERS.rglob("freezer.state") if any(uid in str(file) for uid in history.pods)]
    return [str(file) for file in states if _read(file) != "THAWED"]


def leases(town: Town) -> list[str]:
    """Return the leases of this release's agents that are left on the nodes."""
    files = [file for file in LEASES.rglob("*.json") if _read(file)]
    return [str(file) for file in files if json.loads(_read(file)).get("owner") == town.release.agents]


def orphans(town: Town) -> list[str]:
    """Return pods that no record owns, and records whose pod is not there."""
    pods = [pod for namespace in town.namespaces() for pod in kubectl.items("pods", "-n", namespace, "-l", USERS_CODE)]
    there = {str(pod["metadata"]["uid"]): f"{pod['metadata']['name']} {pod['status'].get('phase')}" for pod in pods}
    named = {
        str(row["handle"]): f"{row['id']} {row['phase']}"
        for row in town.rows("SELECT id, phase, handle FROM workspaces WHERE handle != ''")
    }
    left = [f"pod without a record: {name}" for uid, name in there.items() if uid not in named]
    return left + [f"record without a pod: {name}" for uid, name in named.items() if uid not in there]


def leaked(town: Town) -> list[str]:
    """Return what is held by nothing that runs, and what runs and holds nothing."""
    pods = [pod for namespace in town.namespaces() for pod in kubectl.items("pods", "-n", namespace, "-l", USERS_CODE)]
    labels = [pod["metadata"]["labels"] for pod in pods]
    running = {str(each.get("torpor/job") or each["torpor/workspace"]) for each in labels}
    held = set(town.held())
    return [f"{one} is held" for one in held - running] + [f"{one} runs unheld" for one in running - held]


def damaged(town: Town) -> Iterator[str]:
    """Yield every part of a workspace's checkpoints that the registry itself does not have as it was saved."""
    query = (
        "SELECT c.repository, c.digest FROM checkpoints c JOIN workspaces w "
        "ON c.id IN (w.checkpoint_id, w.previous_checkpoint_id)"
    )
    whole: set[str] = set()
    for row in town.rows(query):
        repository, digest = str(row["repository"]), str(row["digest"])
        manifest = _content(town, f"{repository}/manifests/{digest}")
        if _digest(manifest) != digest:
            yield f"{repository}@{digest} is not there"
            continue
        document = json.loads(manifest)
        for blob in (document["config"]["digest"], *(layer["digest"] for layer in document["layers"])):
            path = f"{repository}/blobs/{blob}"
            # What many have in common is read once, and has to be there for each.
            if blob in whole and _is_there(town, path):
                continue
            if _digest(_content(town, path)) != blob:
                yield f"{path} does not read back"
            whole.add(blob)


def not_woken(lives: Collection[Resident], deaths: Collection[Death]) -> Iterator[str]:
    """Wake each workspace, and yield what it should have of what was installed in it, and has not."""
    for life in lives:
        person = life.person
        if person.status(life.workspace)["phase"] != "RUNNING":
            person.wished(life.workspace, desired="running")
            person.reaches(life.workspace, "RUNNING", within_s=120)
        present = life.present()
        for name in life.installed.keys() - present.keys() - may_be_lost(life, deaths):
            yield f"{life.workspace} has lost {name}: {person.status(life.workspace)['notice']}"


def story(life: Resident, deaths: Collection[Death]) -> str:
    """Return what happened to a workspace, in order."""
    rows = life.town.rows("SELECT * FROM operations WHERE workspace_id = ?", life.workspace)
    what = "{kind} to {step} {error_code} of {handle}, saved as {checkpoint_id}"
    events = [(seconds(row["created_at"]), what.format(**row)) for row in rows]
    events += [(at, f"{name} installed") for name, at in life.when.items()]
    mine = [death for death in deaths if death.workspace == life.workspace]
    events += [(death.at, f"{death.uid} deleted, {death.checkpoint} saved") for death in mine]
    first = min((at for at, _ in events), default=0.0)
    return "\n".join(f"{at - first:>6.1f} s  {event}" for at, event in sorted(events))


def may_be_lost(life: Resident, deaths: Collection[Death]) -> set[str]:
    """Return the packages that were installed in a pod which was deleted, and not surely saved before."""
    mine = [death for death in deaths if death.workspace == life.workspace]
    return {
        name
        for death in mine
        for name in life.installed.keys() - life.saved_in(death.checkpoint)
        if life.when[name] <= death.at + 1
    }


def wrong_jobs(life: Resident) -> Iterator[str]:
    """Yield the jobs that printed something else than they should, or ended without a reason."""
    for job, expected in life.expected.items():
        status = life.person.job(job)
        if status["phase"] == "SUCCEEDED":
            log = life.person.job_log(job)
            if log != f"{expected}\n":
                yield f"{job} printed {log!r} for {expected}"
        elif not (status["reason"] and status["message"]):
            yield f"{job}: {status}"


def _ask(town: Town, path: str, method: str) -> urllib.request.Request:
    url = f"http://{town.door.target}/v2/{path}"
    return urllib.request.Request(url, headers={"Accept": ACCEPT}, method=method)


def _content(town: Town, path: str) -> bytes:
    """Return what the registry behind the door has; empty where it has nothing."""
    try:
        with urllib.request.urlopen(_ask(town, path, "GET"), timeout=60) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def _is_there(town: Town, path: str) -> bool:
    try:
        with urllib.request.urlopen(_ask(town, path, "HEAD"), timeout=60):
            return True
    except OSError:
        return False


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _read(file: os.PathLike[str]) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""
