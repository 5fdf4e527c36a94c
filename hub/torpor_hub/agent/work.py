"""One capture from its claim to its end. Whatever happens, a workspace that is not about to be removed is thawed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from torpor_hub import failpoints
from torpor_hub.agent.tasks import Tasks
from torpor_hub.capture.base import Capture, CaptureResult, CaptureTask
from torpor_hub.errors import CaptureFailed, CorruptImage, PlaceError, PlatformError, StaleFence, Unavailable, Unsettled

LOG = logging.getLogger(__name__)
PAUSE_S = 1.0


class Freezer(Protocol):
    """Stops and continues all processes of a workspace. Both may be repeated."""

    async def freeze(self, workspace_root: Path, handle: str, thaw_after_s: float) -> None:
        """Stop them; something on the node thaws them after ``thaw_after_s`` by itself."""

    async def thaw(self, workspace_root: Path, handle: str) -> None:
        """Let them go on; gone, or not frozen, is success."""


@dataclass
class Claim:
    """What was claimed, and how far it is."""

    content: Mapping[str, Any]
    step: str = "QUIESCE"
    done: int = 0
    total: int = 0
    frozen: bool = False
    taken_over: bool = False

    @property
    def operation(self) -> str:
        """The operation's id."""
        return str(self.content["operation"])

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return Path(self.content["root"])

    @property
    def handle(self) -> str:
        """The start that runs; empty when nothing does."""
        return str(self.content["handle"])

    def task(self) -> CaptureTask:
        """Return what the capture is asked."""
        held = self.content
        return CaptureTask(
            operation=self.operation,
            source=Path(held["source"]),
            repository=held["repository"],
            tag=held["tag"],
            parent_digest=held["parent_digest"],
            annotations=held["annotations"],
        )


class Agent:
    """Works on captures, one at a time. ``name`` is unique among agents that live at the same time."""

    def __init__(self, tasks: Tasks, capture: Capture, freezer: Freezer, *, name: str, node: str) -> None:
        self._tasks = tasks
        self._capture = capture
        self._freezer = freezer
        self._name = name
        self._node = node

    async def run(self) -> None:
        """Claim and work for ever; an api that is away is asked again."""
        while True:
            try:
                content = await self._tasks.claim(self._name, self._node)
            except (Unavailable, StaleFence) as error:
                LOG.debug("no claim: %s", error)
                await asyncio.sleep(PAUSE_S)
                continue
            if content is not None:
                await self.work(Claim(content))

    async def work(self, claim: Claim) -> None:
        """Do one capture: its result or failure is reported, and the workspace thawed unless it is to be removed."""
        await asyncio.to_thread(failpoints.hit, "agent.claimed")
        job = asyncio.create_task(self._save(claim))
        heart = asyncio.create_task(self._beat(claim, job))
        try:
            result = await job
        except asyncio.CancelledError:
            await self._cancelled(claim, job)
        except (PlatformError, OSError) as error:
            LOG.warning("%s failed: %s", claim.operation, error)
            await self._give_up(claim, _code(error), str(error))
        else:
            await self._report(claim, result)
        finally:
            heart.cancel()

    async def _save(self, claim: Claim) -> CaptureResult:
        if claim.content["kind"] == "checkpoint" and claim.handle:
            result = await self._save_live(claim)
        else:
            if claim.handle:
                await self._freeze(claim)
            claim.step = "UPLOAD"
            result = await self._capture.capture(claim.task(), _progress(claim))
        claim.step = "VERIFY"
        await self._capture.verify(claim.content["repository"], result.digest)
        await asyncio.to_thread(failpoints.hit, "agent.verified")
        return result

    async def _save_live(self, claim: Claim) -> CaptureResult:
        claim.step = "UPLOAD"
        try:
            return await self._capture.capture_live(claim.task(), _progress(claim))
        except Unsettled:
            await self._freeze(claim)
            claim.step = "UPLOAD"
        try:
            return await self._capture.capture(claim.task(), _progress(claim))
        finally:
            await self._thaw(claim)

    async def _freeze(self, claim: Claim) -> None:
        claim.step, claim.frozen = "FREEZE", True
        await self._freezer.freeze(claim.root, claim.handle, float(claim.content["thaw_after_s"]))
        await asyncio.to_thread(failpoints.hit, "agent.frozen")

    async def _thaw(self, claim: Claim) -> None:
        if claim.handle:
            await self._freezer.thaw(claim.root, claim.handle)
        claim.frozen = False

    async def _report(self, claim: Claim, result: CaptureResult) -> None:
        body = {
            "fence": claim.content["fence"],
            "digest": result.digest,
            "config_digest": result.config_digest,
            "layers": [asdict(layer) for layer in result.layers],
            "entries": result.entries,
            "changed": result.changed,
            "skipped": list(result.skipped),
        }
        stays = False
        try:
            within_s = float(claim.content["thaw_after_s"])
            stays = bool((await self._tasks.report(claim.operation, "result", body, within_s=within_s))["stay_frozen"])
            await asyncio.to_thread(failpoints.hit, "agent.reported")
        except (StaleFence, Unavailable) as error:
            LOG.warning("%s: the result was not taken: %s", claim.operation, error)
        if not stays:
            await self._thaw(claim)

    async def _cancelled(self, claim: Claim, job: asyncio.Task[CaptureResult]) -> None:
        """End a capture that was cancelled: by its owner, by another agent's claim, or because this program ends."""
        ending = asyncio.current_task()
        if ending is not None and ending.cancelling():
            job.cancel()
            await self._thaw(claim)
            raise asyncio.CancelledError
        if claim.taken_over:
            LOG.warning("%s: another agent has taken over", claim.operation)
            return
        await self._give_up(claim, "CANCELLED", "The sleep was cancelled.")

    async def _give_up(self, claim: Claim, code: str, message: str) -> None:
        await self._thaw(claim)
        body = {"fence": claim.content["fence"], "code": code, "message": message}
        try:
            await self._tasks.report(claim.operation, "failure", body, within_s=60)
        except (StaleFence, Unavailable) as error:
            LOG.warning("%s: the failure was not taken: %s", claim.operation, error)

    async def _beat(self, claim: Claim, job: asyncio.Task[CaptureResult]) -> None:
        """Report progress until the work ends; end the work when the answer says so."""
        while not job.done():
            body = {
                "fence": claim.content["fence"],
                "step": claim.step,
                "bytes": claim.done,
                "bytes_total": claim.total,
            }
            try:
                if await self._tasks.progress(claim.operation, body):
                    job.cancel()
            except StaleFence:
                claim.taken_over = True
                job.cancel()
            except Unavailable as error:
                LOG.debug("%s: heartbeat lost: %s", claim.operation, error)
            await asyncio.sleep(float(claim.content["heartbeat_s"]))


def _progress(claim: Claim) -> Any:
    def report(done: int, total: int) -> None:
        claim.done, claim.total = done, total

    return report


def _code(error: Exception) -> str:
    if isinstance(error, CorruptImage):
        return "NOT_READ_BACK"
    if isinstance(error, PlaceError):
        return "NOT_FROZEN"
    return "NOT_SAVED" if isinstance(error, CaptureFailed) else "FAILED"
