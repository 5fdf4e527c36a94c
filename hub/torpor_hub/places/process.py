"""Workspaces as local process trees: one folder each, below ``<state>/workspaces``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from torpor_hub import failpoints
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint, Fact
from torpor_hub.errors import CorruptImage, PlaceError, UnsafeArchive
from torpor_hub.oci.layers import restore
from torpor_hub.oci.layout import Layout
from torpor_hub.places.base import Preparation
from torpor_hub.processes import files, freeze, identity, launch, layering, records, trees
from torpor_hub.processes.layering import Platform

ENVIRONMENT = "env"
RESTORED = "env.restored"
ORIGIN_FILE = "restored.json"
ANSWER_WITHIN_S = 0.5


class ProcessPlace:
    """Runs workspaces as processes of the platform's own user: there is no isolation between them.

    ``<state>/workspaces/<id>`` holds the environment (``env``), the record of the run and the logs;
    ``<state>/homes/<tenant>/<user>`` the home, which nothing here ever removes.
    """

    keeps_environments = True

    def __init__(self, state_dir: Path, layout: Layout, platform: Platform, pool: Amount) -> None:
        self._workspaces = state_dir / "workspaces"
        self._homes = state_dir / "homes"
        self._layout = layout
        self._platform = platform
        self._pool = pool

    def root_of(self, workspace_id: str) -> Path:
        """Return the folder of a workspace."""
        if not workspace_id or Path(workspace_id).name != workspace_id or workspace_id.startswith("."):
            raise PlaceError(f"'{workspace_id}' is not the id of a workspace.")
        return self._workspaces / workspace_id

    def home_of(self, tenant: str, user: str) -> Path:
        """Return the home of a user in a tenant."""
        return self._homes / tenant / user

    async def facts(self) -> Mapping[str, Fact]:
        """Return every start whose record is there, by workspace id; ``alive`` None where a record cannot be read.

        Raises:
            PlaceError: when the folder of workspaces cannot be listed.
        """
        known = await asyncio.to_thread(self._facts)
        known = [replace(fact, frozen=bool(fact.alive) and self._is_frozen(fact)) for fact in known]
        asked = [fact for fact in known if fact.alive and not fact.frozen]
        answers = await asyncio.gather(*(_answers(fact.port or 0) for fact in asked))
        answered = (replace(fact, answering=answer) for fact, answer in zip(asked, answers, strict=True))
        return {fact.workspace_id: fact for fact in (*known, *answered)}

    async def find(self, workspace_id: str) -> Fact | None:
        """Return what runs of a workspace; None where it has no record.

        Raises:
            PlaceError: when the folder of workspaces cannot be listed.
        """
        return (await self.facts()).get(workspace_id)

    async def prepare(self, preparation: Preparation) -> None:
        """Make folders, home and environment ready; restoring an environment publishes it by one rename.

        A checkpoint that the environment was restored from already is not restored again, unless ``fresh`` asks for it.

        Raises:
            CorruptImage: when the checkpoint does not read back.
            EnvironmentMismatch: when it was made with another Python.
            PlaceError: when the workspace runs and would have to change, or its folder cannot be written.
        """
        await asyncio.to_thread(self._prepare, preparation)

    async def remove(self, workspace_id: str, handle: str, *, grace_s: float) -> None:
        """End exactly the start that ``handle`` names, with every process of it; gone already is success.

        A frozen workspace is killed without being thawed, so that nothing changes after its capture.

        Raises:
            PlaceError: when something does not end.
        """
        await asyncio.to_thread(self._remove, workspace_id, handle, grace_s)

    async def discard(self, workspace_id: str) -> None:
        """Remove the workspace's folder, but never its home.

        Raises:
            PlaceError: when the workspace runs.
        """
        await asyncio.to_thread(self._discard, workspace_id)

    async def discard_environment(self, workspace_id: str) -> None:
        """Remove the environment alone, once it is saved: the workspace sleeps and keeps its logs.

        Raises:
            PlaceError: when the workspace runs.
        """
        await asyncio.to_thread(self._discard_environment, workspace_id)

    async def last_lines(self, workspace_id: str, count: int) -> str:
        """Return the last lines of the server's log; empty when there are none."""
        return await asyncio.to_thread(launch.last_lines, self.root_of(workspace_id) / launch.LOG_FILE, count)

    async def capacity(self) -> Amount:
        """Return the pool, as it is set."""
        return self._pool

    def _facts(self) -> list[Fact]:
        try:
            roots = [folder for folder in self._workspaces.iterdir() if not folder.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PlaceError(f"The workspaces in {self._workspaces} cannot be listed: {error.strerror}.") from error
        return [fact for fact in map(_fact, roots) if fact is not None]

    def _is_frozen(self, fact: Fact) -> bool:
        """Return whether a server stands still: its port is open all the same, so that it cannot be asked."""
        return freeze.is_frozen(self.root_of(fact.workspace_id), fact.handle)

    def _prepare(self, preparation: Preparation) -> None:
        root = self.root_of(preparation.workspace_id)
        env = root / ENVIRONMENT
        try:
            self._make_folders(root, self.home_of(preparation.tenant, preparation.user))
            _sweep(root)
            if _has_to_change(root, preparation):
                _require_stopped(root)
                if preparation.checkpoint is None:
                    self._discard_environment(preparation.workspace_id)
                else:
                    self._restore(root, preparation.checkpoint)
            layering.create(env, self._platform)
            layering.configure(root, self._platform)
        except OSError as error:
            raise PlaceError(f"The workspace's folder {root} cannot be made ready: {error}.") from error

    def _make_folders(self, root: Path, home: Path) -> None:
        for folder in (self._workspaces, root, self._homes, home.parent, home):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.remove_leftovers(root)
        files.remove_leftovers(self._workspaces)

    def _restore(self, root: Path, checkpoint: Checkpoint) -> None:
        """Put the checkpoint in place of the environment: whole beside it, noted, then renamed."""
        failpoints.hit("place.before_restore")
        restored, env = root / RESTORED, root / ENVIRONMENT
        files.remove_folder(restored)
        image = self._layout.read_image(checkpoint.repository, checkpoint.digest)
        try:
            restore(image.layers, partial(self._layout.open_blob, checkpoint.repository), restored)
        except UnsafeArchive as error:
            raise CorruptImage(f"The checkpoint {checkpoint.digest} cannot be restored: {error}") from error
        layering.require_python(restored, self._platform)
        files.remove_folder(env)
        _note_origin(root, checkpoint.digest, restored)
        restored.rename(env)
        failpoints.hit("place.restored")

    def _remove(self, workspace_id: str, handle: str, grace_s: float) -> None:
        root = self.root_of(workspace_id)
        reaper = _parse(handle)
        record = launch.read_run(root)
        current = record is not None and record.handle == handle
        # The mark names the grant and not the workspace: a later start of the workspace has another one.
        mark = (launch.GRANT_MARK, record.grant_id) if record is not None and current else None
        frozen = current and freeze.read_lease(root) is not None
        trees.end_tree(reaper, mark=mark, grace_s=0.0 if frozen else grace_s)
        if current:
            (root / freeze.LEASE_FILE).unlink(missing_ok=True)
            (root / records.RUN_FILE).unlink(missing_ok=True)
        failpoints.hit("place.removed")

    def _discard(self, workspace_id: str) -> None:
        root = self.root_of(workspace_id)
        _require_stopped(root)
        files.remove_folder(root)
        if self._workspaces.is_dir():
            files.remove_leftovers(self._workspaces)

    def _discard_environment(self, workspace_id: str) -> None:
        root = self.root_of(workspace_id)
        _require_stopped(root)
        (root / ORIGIN_FILE).unlink(missing_ok=True)
        files.remove_folder(root / RESTORED)
        files.remove_folder(root / ENVIRONMENT)


def _fact(root: Path) -> Fact | None:
    try:
        record = launch.read_run(root)
        if record is None:
            return None
        alive = launch.is_running(record)
    except (PlaceError, ValueError):
        return Fact(workspace_id=root.name, grant_id="", alive=None, answering=None, handle="")
    return Fact(
        workspace_id=root.name,
        grant_id=record.grant_id,
        alive=alive,
        answering=None if alive else False,
        handle=record.handle,
        port=record.port,
        exit_code=record.exit_code,
        started_at=record.started_at,
    )


async def _answers(port: int) -> bool:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _parse(handle: str) -> identity.Identity:
    try:
        return identity.parse(handle)
    except ValueError as error:
        raise PlaceError(f"'{handle}' is not the handle of a local process.") from error


def _has_to_change(root: Path, preparation: Preparation) -> bool:
    if preparation.fresh:
        return True
    checkpoint = preparation.checkpoint
    return checkpoint is not None and _origin(root) != checkpoint.digest


def _require_stopped(root: Path) -> None:
    record = launch.read_run(root)
    if record is not None and launch.is_running(record):
        raise PlaceError(f"The workspace {root.name} runs as {record.handle}: its environment cannot be changed.")


def _sweep(root: Path) -> None:
    """End what a start that is over may have left because its reaper was killed."""
    record = launch.read_run(root)
    if record is not None and not launch.is_running(record):
        trees.end_tree(_parse(record.handle), mark=(launch.GRANT_MARK, record.grant_id))


def _note_origin(root: Path, digest: str, folder: Path) -> None:
    """Note which checkpoint ``folder`` holds, by its inode: the note is true of the environment once that is renamed."""
    content = {"digest": digest, "inode": os.stat(folder).st_ino}  # noqa: PTH116
    files.write_atomically(root / ORIGIN_FILE, json.dumps(content).encode())


def _origin(root: Path) -> str | None:
    """Return the digest that the environment was restored from; None where it is not known, or the note is of another."""
    try:
        content = json.loads((root / ORIGIN_FILE).read_bytes())
        return str(content["digest"]) if content["inode"] == (root / ENVIRONMENT).stat().st_ino else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
