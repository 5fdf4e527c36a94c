"""The loop for workspaces: starts, sleeps, ends, and what was found."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import select

from torpor_hub import failpoints
from torpor_hub.controllers.base import Leadership
from torpor_hub.controllers.hub import Hub
from torpor_hub.domain import draining
from torpor_hub.domain.diagnose import diagnose
from torpor_hub.domain.lifecycle import Next, StartStep, View, Work, decide
from torpor_hub.domain.workspaces import Checkpoint as Saved
from torpor_hub.domain.workspaces import Desired, Fact, Phase
from torpor_hub.errors import Conflict, CorruptImage, PlaceError, PlaceUnready, TorporError, Unavailable
from torpor_hub.places.base import Place, Preparation
from torpor_hub.services import images, ledger, operations, sleeps, starts, wakes
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.changes import Seen as Change
from torpor_hub.stores.tables import Checkpoint, Grant, Operation, User, Workspace

LOG = logging.getLogger(__name__)
HUB_AGAIN_S = 2.0
GRACE_S = 5.0
LOG_LINES = 200
SILENT_TURNS = 15
WELCOME_S = 8.0
ROUTE_WITHIN_S = 10.0


class Images(Protocol):
    """Where environments are kept."""

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Remove an image; gone already is success. Its blobs go with a later collection."""


@dataclass(frozen=True)
class Seen:
    """One workspace as a turn of the loop sees it."""

    id: str
    name: str
    user: str
    user_id: str
    handle: str
    message: str
    view: View


class WorkspaceController:
    """Makes facts follow wishes, one step per turn and workspace; every step may be repeated."""

    def __init__(
        self, store: Store, settings: Settings, place: Place, images: Images, hub: Hub, leadership: Leadership
    ) -> None:
        self._store = store
        self._images = images
        self._settings = settings
        self._place = place
        self._hub = hub
        self._lead = leadership
        self._hub_called: dict[str, float] = {}
        self._silent: dict[str, int] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._welcomes: dict[str, float] = {}
        self._answering: dict[str, float] = {}
        self._drains = draining.Drains()
        self._draining: frozenset[str] = frozenset()
        self._steps: Mapping[Next, Callable[[Seen], Awaitable[None]]] = {
            Next.PREPARE: self._prepare,
            Next.CALL_HUB: self._call_hub,
            Next.START_OVERDUE: self._start_overdue,
            Next.GRANT_EXPIRED: self._grant_expired,
            Next.LAUNCHED: self._launched,
            Next.RUNNING: self._running,
            Next.DIED_AT_START: self._died_at_start,
            Next.GONE: self._gone,
            Next.SILENT: self._went_silent,
            Next.ANSWERS_AGAIN: self._answers_again,
            Next.BEGIN_SLEEP: self._begin_sleep,
            Next.DRAIN: self._drain,
            Next.KEEPS_NODE: self._keeps_node,
            Next.REMOVE: self._remove,
            Next.SLEEP_OVERDUE: self._sleep_overdue,
            Next.BACK_TO_WORK: self._back_to_work,
            Next.END: self._end,
            Next.ADOPT: self._adopt,
            Next.DELETE: self._delete,
        }

    async def turn(self) -> None:
        """Look at all workspaces once, and take the next step of each in a task of its own."""
        try:
            facts = await self._place.facts()
        except PlaceError as error:
            LOG.warning("nothing is known of the workspaces now: %s", error)
            return
        everything = await asyncio.to_thread(self._look, facts)
        self._draining = self._drained_next(everything)
        for seen in everything:
            task = self._busy.get(seen.id)
            step = decide(seen.view)
            self._count_silence(seen, step)
            if (task is not None and not task.done()) or not self._is_due(seen, step):
                continue
            self._busy[seen.id] = asyncio.create_task(self._take(step, seen))
        await self._lead.record(_expire_checkpoints)
        await self._take_up_again()

    def welcome(self, change: Change) -> None:
        """Note a sign-in: a hub that lost its database learns of the user's running workspaces right after it."""
        if change.kind == "user" and change.event == "signed-in":
            self._welcomes[change.object_id] = time.monotonic() + WELCOME_S

    async def _take_up_again(self) -> None:
        now = time.monotonic()
        self._welcomes = {user: until for user, until in list(self._welcomes.items()) if until > now}
        for seen in await asyncio.to_thread(self._look, {}) if self._welcomes else ():
            if (
                seen.user_id in self._welcomes
                and seen.view.phase is Phase.RUNNING
                and self._is_due(seen, Next.CALL_HUB)
            ):
                await self._call_hub(seen)

    async def end_all(self) -> None:
        """End every workspace with its environment kept: the platform stops."""
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)
        facts = await self._place.facts()
        live = [fact for fact in facts.values() if fact.alive]
        await asyncio.gather(*(self._end_with_platform(fact) for fact in live))

    async def _take(self, step: Next, seen: Seen) -> None:
        try:
            await self._steps[step](seen)
        except (TorporError, OSError) as error:
            LOG.warning("%s: %s: %s", seen.id, step, error)

    def _is_due(self, seen: Seen, step: Next) -> bool:
        if step is Next.NOTHING:
            return False
        if step is Next.CALL_HUB:
            return time.monotonic() - self._hub_called.get(seen.id, 0) > HUB_AGAIN_S
        if step is Next.DRAIN:
            return seen.id in self._draining
        fact = seen.view.fact
        unreachable = fact is not None and not fact.reachable
        return step is not Next.SILENT or unreachable or self._silent[seen.id] >= SILENT_TURNS

    def _drained_next(self, everything: Sequence[Seen]) -> frozenset[str]:
        """Return which of the workspaces on nodes that are being emptied go to sleep in this turn."""
        nodes = {seen.id: seen.view.fact.node for seen in everything if seen.view.fact is not None}
        there = [seen for seen in everything if seen.id in nodes]
        waiting = {seen.id: nodes[seen.id] for seen in there if decide(seen.view) is Next.DRAIN}
        sleeping = {seen.id: nodes[seen.id] for seen in there if seen.view.phase is Phase.SLEEPING}
        return self._drains.choose(waiting, sleeping, time.monotonic())

    def _count_silence(self, seen: Seen, step: Next) -> None:
        self._silent[seen.id] = self._silent.get(seen.id, 0) + 1 if step is Next.SILENT else 0

    def _look(self, facts: Mapping[str, Fact]) -> list[Seen]:
        with self._store.read() as tx:
            return [_see(tx, row, facts.get(row.id)) for row in tx.session.scalars(select(Workspace))]

    async def _prepare(self, seen: Seen) -> None:
        def load(tx: UnitOfWork) -> tuple[Preparation, str, str | None]:
            row = operations.workspace_of(tx, seen.id)
            preparation, checkpoint = starts.preparation(tx, row)
            if preparation.checkpoint is None:
                images.require(tx, self._settings, row)
            return preparation, checkpoint, row.previous_checkpoint_id

        try:
            preparation, checkpoint, previous = await self._lead.record(load)
            fell_back = await self._restore(preparation, None if previous == checkpoint else previous)
        except PlaceUnready as error:
            sentence = str(error)
            await self._lead.record(lambda tx: _waits(tx, seen.id, StartStep.PREPARE, sentence))
            return
        except CorruptImage as error:
            await self._fail(seen, "CORRUPT_CHECKPOINT", f"The saved environment cannot be read: {error}")
            return
        except (PlaceError, Conflict) as error:
            await self._fail(seen, "PLACE", str(error))
            return
        used = previous or "" if fell_back else checkpoint
        await asyncio.to_thread(failpoints.hit, "start.prepared")
        await self._lead.record(lambda tx: _prepared(tx, seen.id, used, fell_back))
        await self._call_hub(seen)

    async def _restore(self, preparation: Preparation, previous: str | None) -> bool:
        """Make the environment ready; return whether the previous checkpoint had to be used for it."""
        try:
            await self._place.prepare(preparation)
        except CorruptImage:
            older = await self._lead.record(lambda tx: _saved(tx, previous))
            if older is None:
                raise
            await self._place.prepare(_with(preparation, older))
            return True
        return False

    async def _fail(self, seen: Seen, code: str, message: str) -> None:
        step = "Start with the profile's own environment; the saved one stays for a platform admin to look at."
        await self._lead.record(
            lambda tx: starts.failed(
                tx, operations.workspace_of(tx, seen.id), code=code, message=message, next_step=step
            )
        )

    async def _call_hub(self, seen: Seen) -> None:
        self._hub_called[seen.id] = time.monotonic()
        try:
            await self._hub.start(seen.user, seen.name)
        except Unavailable as error:
            LOG.info("%s: %s", seen.id, error)

    async def _start_overdue(self, seen: Seen) -> None:
        fact = await self._find(seen)
        log = await self._keep_log(seen)
        if fact is not None:
            await self._place.remove(seen.id, fact.handle, grace_s=GRACE_S)
        within_s = self._settings.limits.start_s
        kept = self._place.keeps_environments

        def write(tx: UnitOfWork) -> None:
            message = starts.overdue(tx, operations.workspace_of(tx, seen.id), within_s)
            _failed_start(tx, seen.id, "START_OVERDUE", message, log, kept=kept)

        await self._lead.record(write)

    async def _find(self, seen: Seen) -> Fact | None:
        """Return what surely runs or surely ended: no step that could lose something trusts in what a turn has seen.

        Raises:
            PlaceError: when nobody can tell.
        """
        fact = await self._place.find(seen.id)
        if fact is not None and fact.alive is None:
            raise PlaceError("Nobody can tell whether it runs.")
        return fact

    async def _keep_log(self, seen: Seen) -> str:
        """Return the last lines of what failed, which are stored before it is removed with them."""
        log = await self._place.last_lines(seen.id, LOG_LINES)
        await self._lead.record(lambda tx: wakes.keep_log(tx, operations.workspace_of(tx, seen.id), log))
        return log

    async def _grant_expired(self, seen: Seen) -> None:
        fact = await self._find(seen)
        if fact is not None and fact.alive:
            return
        await self._lead.record(lambda tx: starts.expired(tx, operations.workspace_of(tx, seen.id)))

    async def _launched(self, seen: Seen) -> None:
        fact = seen.view.fact
        if fact is not None and fact.handle != seen.handle:
            await self._lead.record(lambda tx: starts.launched(tx, operations.workspace_of(tx, seen.id), fact))
        if fact is not None and fact.waits_for not in ("", seen.message):
            await self._lead.record(lambda tx: _waits(tx, seen.id, StartStep.LAUNCH, fact.waits_for))

    async def _running(self, seen: Seen) -> None:
        fact = seen.view.fact
        if fact is None or not await self._is_reachable(seen):
            return
        await asyncio.to_thread(failpoints.hit, "start.answering")
        await self._lead.record(lambda tx: starts.running(tx, operations.workspace_of(tx, seen.id), fact))

    async def _is_reachable(self, seen: Seen) -> bool:
        """Return whether what answers can be visited; a hub that is away keeps no start from its end."""
        start = seen.view.grant_id or seen.id
        since = self._answering.setdefault(start, time.monotonic())
        try:
            reachable = await self._hub.leads_to(seen.user, seen.name)
        except Unavailable:
            reachable = False
        if reachable or time.monotonic() - since > ROUTE_WITHIN_S:
            del self._answering[start]
            return True
        return False

    async def _died_at_start(self, seen: Seen) -> None:
        fact = seen.view.fact
        if fact is None:
            return
        log = await self._keep_log(seen)
        kept = self._place.keeps_environments
        cause = fact.verdict or diagnose(fact.exit_code, log, had_answered=False, kept=kept)
        await self._place.remove(seen.id, fact.handle, grace_s=0 if fact.verdict else GRACE_S)
        await self._lead.record(
            lambda tx: _failed_start(tx, seen.id, cause.reason, cause.message, log, cause.next_step, kept=kept)
        )

    async def _gone(self, seen: Seen) -> None:
        fact = await self._find(seen)
        if fact is not None and fact.alive:
            return
        log = await self._keep_log(seen)
        if seen.handle:
            # Whatever the server left behind is ended before its resources are called free.
            await self._place.remove(seen.id, seen.handle, grace_s=GRACE_S)
        ended = fact if fact is not None and fact.handle == seen.handle else None
        await self._lead.record(lambda tx: _gone(tx, seen, ended, log, kept=self._place.keeps_environments))

    async def _went_silent(self, seen: Seen) -> None:
        fact = seen.view.fact
        cause = wakes.SILENT if fact is None or fact.reachable else fact.verdict or wakes.SILENT
        await self._lead.record(lambda tx: wakes.silent(tx, operations.workspace_of(tx, seen.id), cause))

    async def _answers_again(self, seen: Seen) -> None:
        fact = seen.view.fact
        if fact is not None:
            await self._lead.record(lambda tx: wakes.answers_again(tx, operations.workspace_of(tx, seen.id), fact))

    async def _begin_sleep(self, seen: Seen) -> None:
        await self._lead.record(lambda tx: sleeps.wish(tx, self._settings, operations.workspace_of(tx, seen.id)))

    async def _drain(self, seen: Seen) -> None:
        await self._lead.record(lambda tx: sleeps.drain(tx, self._settings, operations.workspace_of(tx, seen.id)))

    async def _keeps_node(self, seen: Seen) -> None:
        await self._lead.record(lambda tx: sleeps.keeps_node(tx, operations.workspace_of(tx, seen.id)))

    async def _remove(self, seen: Seen) -> None:
        await asyncio.to_thread(failpoints.hit, "sleep.before_remove")
        if not await self._lead.record(lambda tx: sleeps.removing(tx, operations.workspace_of(tx, seen.id))):
            return
        await self._end_start(seen, grace_s=0)
        await asyncio.to_thread(failpoints.hit, "sleep.removed")
        await self._place.discard_environment(seen.id)
        await self._lead.record(lambda tx: sleeps.removed(tx, self._settings, operations.workspace_of(tx, seen.id)))

    async def _sleep_overdue(self, seen: Seen) -> None:
        await self._lead.record(lambda tx: sleeps.overdue(tx, operations.workspace_of(tx, seen.id)))

    async def _back_to_work(self, seen: Seen) -> None:
        await self._lead.record(lambda tx: sleeps.back_to_work(tx, operations.workspace_of(tx, seen.id)))
        await self._call_hub(seen)

    async def _end(self, seen: Seen) -> None:
        await self._end_start(seen, grace_s=GRACE_S)
        await self._place.discard(seen.id)
        await self._lead.record(lambda tx: wakes.discarded(tx, operations.workspace_of(tx, seen.id)))

    async def _end_start(self, seen: Seen, *, grace_s: float) -> None:
        """End the start that the record names; one that was never recorded is not there to be ended."""
        if seen.handle:
            await self._place.remove(seen.id, seen.handle, grace_s=grace_s)

    async def _end_with_platform(self, fact: Fact) -> None:
        await self._place.remove(fact.workspace_id, fact.handle, grace_s=GRACE_S)
        await self._lead.record(lambda tx: _platform_stopped(tx, fact.workspace_id))

    async def _adopt(self, seen: Seen) -> None:
        fact = await self._find(seen)
        if fact is not None and fact.alive:
            await self._lead.record(lambda tx: wakes.adopt(tx, operations.workspace_of(tx, seen.id), fact))

    async def _delete(self, seen: Seen) -> None:
        fact = await self._find(seen)
        if fact is not None:
            await self._place.remove(seen.id, fact.handle, grace_s=0)
        await self._place.discard(seen.id)
        for repository, digest in await self._lead.record(lambda tx: wakes.spare_images(tx, seen.id)):
            await asyncio.to_thread(self._images.delete_manifest, repository, digest)
        await self._lead.record(lambda tx: _deleted(tx, seen.id))


def _see(tx: UnitOfWork, row: Workspace, fact: Fact | None) -> Seen:
    operation = operations.current(tx, row)
    grant = tx.session.get(Grant, row.grant_id) if row.grant_id else None
    view = View(
        Phase(row.phase),
        Desired(row.desired),
        row.grant_id,
        _work(tx, operation),
        fact,
        grant_expired=grant is not None and grant.used_at is None and grant.expires_at < tx.now,
        told_of_drain=row.reason == draining.REASON,
    )
    return Seen(
        row.id, row.name, tx.session.get_one(User, row.user_id).name, row.user_id, row.handle, row.message, view
    )


def _work(tx: UnitOfWork, operation: Operation | None) -> Work | None:
    if operation is None:
        return None
    overdue = operation.deadline is not None and operation.deadline < tx.now
    claimed = bool(operation.claimed_by) and (operation.claimed_until is None or operation.claimed_until > tx.now)
    thaws = operation.frozen_until is not None and operation.frozen_until < tx.now + sleeps.REMOVAL
    return Work(operation.kind, operation.step, overdue, claimed, thaws)


def _gone(tx: UnitOfWork, seen: Seen, ended: Fact | None, log: str, *, kept: bool) -> None:
    row = operations.workspace_of(tx, seen.id)
    code, verdict = (ended.exit_code, ended.verdict) if ended is not None else (None, None)
    wakes.gone(tx, row, exit_code=code, log=log or row.last_log, handle=seen.handle, kept=kept, verdict=verdict)


def _waits(tx: UnitOfWork, workspace_id: str, step: StartStep, sentence: str) -> None:
    starts.waiting(tx, operations.workspace_of(tx, workspace_id), step, sentence)


def _saved(tx: UnitOfWork, checkpoint_id: str | None) -> Checkpoint | None:
    return tx.session.get(Checkpoint, checkpoint_id) if checkpoint_id else None


def _with(preparation: Preparation, row: Checkpoint) -> Preparation:
    saved = Saved(row.id, row.repository, row.digest, row.python_version, row.platform_version)
    return replace(preparation, checkpoint=saved, fresh=False)


def _prepared(tx: UnitOfWork, workspace_id: str, checkpoint: str, fell_back: bool) -> None:
    row = operations.workspace_of(tx, workspace_id)
    sentence = wakes.notice(tx, row, checkpoint, fell_back=fell_back)
    starts.prepared(tx, row, from_checkpoint=checkpoint, notice=sentence)


def _failed_start(
    tx: UnitOfWork,
    workspace_id: str,
    code: str,
    message: str,
    log: str,
    next_step: str = "Read its log, then try again.",
    *,
    kept: bool,
) -> None:
    row = operations.workspace_of(tx, workspace_id)
    starts.failed(tx, row, code=code, message=message, next_step=next_step)
    wakes.keep_log(tx, row, log)
    row.unsaved = row.unsaved and kept


def _platform_stopped(tx: UnitOfWork, workspace_id: str) -> None:
    row = tx.session.get(Workspace, workspace_id)
    if row is None:
        return
    operation = operations.current(tx, row)
    if operation is not None:
        operations.end(tx, operation, "FAIL", code="PLATFORM_STOPPED", error="The platform was stopped.")
    wakes.rest(
        tx,
        row,
        Phase.STOPPED,
        reason="PLATFORM_STOPPED",
        message="The platform was stopped; the environment was kept.",
        next_step="Start it when you need it.",
    )


def _deleted(tx: UnitOfWork, workspace_id: str) -> None:
    row = operations.workspace_of(tx, workspace_id)
    ledger.release(tx, row.id)
    wakes.forget_images(tx, row.id)
    tx.change("workspace", row.id, "deleted", tenant_id=row.tenant_id, owner_id=row.user_id)
    tx.session.delete(row)


def _expire_checkpoints(tx: UnitOfWork) -> None:
    """End checkpoints for jobs that are past their deadline, so that a job fails with a reason and waits for nothing."""
    late = select(Operation).where(
        Operation.kind == "checkpoint", Operation.ended_at.is_(None), Operation.deadline < tx.now
    )
    for operation in tx.session.scalars(late):
        operations.end(tx, operation, "FAIL", code="OVERDUE", error="Saving the environment took longer than allowed.")
        row = tx.session.get(Workspace, operation.workspace_id)
        if row is not None:
            if row.operation_id == operation.id:
                row.operation_id = None
            operations.changed(tx, row, "checkpoint-failed", operation=operation.id)
