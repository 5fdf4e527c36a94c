"""What has to be true after a storm, read from the process table, files and the database itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.people import Person
from tests.support.platform import Platform
from torpor_hub.processes import identity, records, trees

FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")
SETTLED = ("RUNNING", "ASLEEP", "STOPPED", "FAILED", "NEW")


def unsettled(site: Platform) -> list[str]:
    """Return what has not come to rest, according to the database."""
    queries = {
        "operation {id} {kind}/{step} of {workspace_id}": "SELECT * FROM operations WHERE ended_at IS NULL",
        "job {id} {phase}: {message}": f"SELECT * FROM jobs WHERE phase NOT IN {FINAL}",
        "workspace {id} {phase}, desired {desired}": (
            f"SELECT * FROM workspaces WHERE phase NOT IN {SETTLED} OR operation_id IS NOT NULL"
        ),
        "import {id} {phase}": "SELECT * FROM imports WHERE ended_at IS NULL",
        "read {id} {phase}": "SELECT * FROM reads WHERE ended_at IS NULL",
        "attempt {job_id} {number} {state}": "SELECT * FROM attempts WHERE state != 'closed'",
    }
    return [text.format(**row) for text, query in queries.items() for row in site.rows(query)]


def strays(site: Platform) -> dict[int, str]:
    """Return the platform's processes that belong neither to a service nor to a running workspace or job."""
    assert site.process is not None
    census = trees.Census()
    roots = [*site.services().values(), *(reaper.pid for reaper in _running(site).values())]
    known = {site.process.pid, *roots}
    known |= {stat.pid for root in roots for stat in trees.descendants(root, census)}
    found = site.processes()
    below = {stat.pid: f"{_name(stat.pid)}: {stat}" for stat in trees.descendants(site.process.pid, census)}
    return {pid: command for pid, command in {**below, **found}.items() if pid not in known and _lives(pid)}


def frozen(site: Platform) -> list[int]:
    """Return the processes that are stopped."""
    return [pid for pid in site.processes() if _state(pid) == "T"]


def wrong_reservations(site: Platform) -> dict[str, list[str]]:
    """Return what is held without a living holder, and holders that hold nothing."""
    held, living = site.held(), sorted(_running(site))
    lacking = [one for one in living if one not in held]
    return {
        name: rows
        for name, rows in (("left", [one for one in held if one not in living]), ("lacking", lacking))
        if rows
    }


def wrong_workspaces(site: Platform) -> Iterator[str]:
    """Yield in what the database and the truth differ."""
    living = _running(site)
    for row in site.rows("SELECT * FROM workspaces"):
        root = site.state / "workspaces" / str(row["id"])
        runs, has_environment = row["id"] in living, (root / "env").is_dir()
        if runs != (row["phase"] == "RUNNING"):
            yield f"{row['id']} is {row['phase']}; its process {'lives' if runs else 'does not live'}"
        if runs and living[str(row["id"])].handle() != row["handle"]:
            yield f"{row['id']} has the handle {row['handle']}; {living[str(row['id'])].handle()} lives"
        if row["phase"] == "ASLEEP" and (has_environment or not row["checkpoint_id"]):
            yield f"{row['id']} is asleep with environment {has_environment}, checkpoint {row['checkpoint_id']}"
        if row["unsaved"] and not has_environment:
            yield f"{row['id']} has unsaved changes and no environment"
        if (root / "freeze.json").exists():
            yield f"{row['id']} still has a lease to be frozen"


def wrong_images(site: Platform) -> Iterator[str]:
    """Yield every blob of a workspace's checkpoints that does not have its digest."""
    query = (
        "SELECT c.* FROM checkpoints c JOIN workspaces w ON c.id IN (w.checkpoint_id, w.previous_checkpoint_id) "
        "UNION SELECT c.* FROM checkpoints c JOIN jobs j ON c.id = j.checkpoint_id"
    )
    folder = site.state / "images"
    index = {entry["digest"] for entry in json.loads((folder / "index.json").read_text())["manifests"]}
    for row in site.rows(query):
        manifest = _blob(folder, row["digest"])
        if row["digest"] not in index:
            yield f"{row['digest']} is not in the index"
        document = json.loads(manifest)
        for digest in (row["digest"], document["config"]["digest"], *(layer["digest"] for layer in document["layers"])):
            if "sha256:" + hashlib.sha256(_blob(folder, digest)).hexdigest() != digest:
                yield f"{digest} of {row['id']} does not read back"


def disagreements(site: Platform, people: list[Person]) -> Iterator[str]:
    """Yield where the api says something else than the database."""
    for person in people:
        for kind in ("workspaces", "jobs"):
            rows = {str(row["id"]): str(row["phase"]) for row in site.rows(f"SELECT id, phase FROM {kind}")}
            for item in _all(person, f"/{kind}"):
                if rows.get(item["id"]) != item["status"]["phase"]:
                    yield f"{item['id']}: the api says {item['status']['phase']}, the database {rows.get(item['id'])}"


def _all(person: Person, path: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    while cursor is not None:
        answer = person.get(f"{path}?limit=200" + (f"&cursor={cursor}" if cursor else ""))
        yield from answer["items"]
        cursor = answer["next"]


def _running(site: Platform) -> dict[str, identity.Identity]:
    """Return the living reapers, or servers whose reaper was killed, by workspace; and living wrappers by job."""
    found: dict[str, identity.Identity] = {}
    for root in (site.state / "workspaces").glob("ws-*"):
        record = records.read(root)
        for handle in (record.handle, record.server) if record else ():
            if handle and identity.alive(identity.parse(handle)):
                found.setdefault(root.name, identity.parse(handle))
    for file in (site.state / "jobs").glob("job-*/attempt.json"):
        held = json.loads(file.read_text())
        wrapper = identity.Identity(int(held["pid"]), int(held["start_time"]), str(held["boot"]))
        if identity.alive(wrapper):
            found[file.parent.name.rpartition("-a")[0]] = wrapper
    return found


def _blob(folder: Path, digest: str) -> bytes:
    return (folder / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "(gone)"


def _state(pid: int) -> str:
    stat = identity.read_stat(pid)
    return stat.state if stat is not None else ""


def _lives(pid: int) -> bool:
    stat = identity.read_stat(pid)
    return stat is not None and not identity.is_dead(stat)
