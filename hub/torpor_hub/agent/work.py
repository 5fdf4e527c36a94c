"""One capture from its claim to its end. Whatever happens, a workspace that is not about to be removed is thawed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from torpor_hub import failpoints
from torpor_hub.agent.ground import Claim, Ground, Subject
from torpor_hub.agent.tasks import Tasks
from torpor_hub.capture.base import CaptureResult, Prepared, Progress
from torpor_hub.errors import (
    CaptureFailed,
    CorruptImage,
    PlaceError,
    PlatformError,
    RegistryFull,
    RegistryUnavailable,
    StaleFence,
    Unavailable,
    Unsettled,
)

LOG = logging.getLogger(__name__)
PAUSE_S = 1.0
FAILURE_WITHIN_S = 60.0


class Verdict(Enum):
    """Why the platform wants a capture ended."""

    CANCELLED = "cancelled"
    TAKEN_OVER = "taken over"


class Agent:
    """Works on captures, one at a time. ``name`` is unique among agents that live at the same time."""

    def __init__(self, tasks: Tasks, ground: Ground, *, name: str, node: str) -> None:
        self._tasks = tasks
        self._ground = ground
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
        claim.begun = _now()
        await asyncio.to_thread(failpoints.hit, "agent.claimed")
        job = asyncio.create_task(self._save(claim))
        heart = asyncio.create_task(self._beat(claim))
        try:
            await asyncio.wait({job, heart}, return_when=asyncio.FIRST_COMPLETED)
            if job.done():
                heart.cancel()
                await self._finish(claim, job)
            else:
                await self._stop(claim, job, heart.result())
        except asyncio.CancelledError:
            # This program ends. What the platform was promised is its to decide about.
            job.cancel()
            if claim.frozen_until is None:
                await self._thaw(claim)
            raise
        finally:
            heart.cancel()

    async def _save(self, claim: Claim) -> CaptureResult:
        subject = await self._ground.locate(claim)
        prepared = await subject.capture.prepare(subject.task, _progress(claim))
        await asyncio.to_thread(failpoints.hit, "agent.prepared")
        if claim.content["kind"] == "checkpoint" and claim.handle:
            return await self._save_live(claim, subject, prepared)
        if claim.handle:
            await self._freeze(claim)
        result = await self._capture(claim, subject, prepared)
        if claim.handle:
            await self._promise(claim)
        return result

    async def _save_live(self, claim: Claim, subject: Subject, prepared: Prepared) -> CaptureResult:
        claim.step = "UPLOAD"
        try:
            result = await subject.capture.capture_live(subject.task, _progress(claim), prepared=prepared)
            await self._verify(claim, subject, result)
            return result
        except Unsettled:
            await self._freeze(claim)
        try:
            result = await self._capture(claim, subject, prepared)
            await self._ground.promise(claim)
            return result
        finally:
            await self._thaw(claim)

    async def _capture(self, claim: Claim, subject: Subject, prepared: Prepared) -> CaptureResult:
        claim.step = "UPLOAD"
        result = await subject.capture.capture(subject.task, _progress(claim), prepared=prepared)
        await self._verify(claim, subject, result)
        return result

    async def _verify(self, claim: Claim, subject: Subject, result: CaptureResult) -> None:
        claim.step = "VERIFY"
        await subject.capture.verify(subject.task.repository, result.digest)
        await asyncio.to_thread(failpoints.hit, "agent.verified")

    async def _freeze(self, claim: Claim) -> None:
        claim.step, claim.frozen_at = "FREEZE", _now()
        claim.freezing = asyncio.ensure_future(self._ground.freeze(claim))
        await asyncio.shield(claim.freezing)
        await asyncio.to_thread(failpoints.hit, "agent.frozen")

    async def _thaw(self, claim: Claim) -> None:
        """Thaw what is frozen, or is being frozen at this moment, by this agent or by one that died over the same workspace."""
        if claim.freezing is not None:
            await asyncio.wait([claim.freezing])
        await self._ground.thaw(claim)
        claim.freezing = claim.frozen_until = None

    async def _promise(self, claim: Claim) -> None:
        """Make sure that what was saved stood still all the time, and note until when it will."""
        claim.frozen_until = _now() + await self._ground.promise(claim)

    async def _finish(self, claim: Claim, job: asyncio.Task[CaptureResult]) -> None:
        try:
            result = job.result()
        except (PlatformError, OSError) as error:
            LOG.warning("%s failed: %s", claim.operation, error)
            await self._thaw(claim)
            await self._report_failure(claim, _code(error), str(error))
        else:
            _log(claim, result)
            await self._report(claim, result)

    async def _stop(self, claim: Claim, job: asyncio.Task[CaptureResult], verdict: Verdict) -> None:
        """End a capture that nobody wants any more: the user's processes go on before anything else happens."""
        job.cancel()
        if verdict is Verdict.CANCELLED:
            await self._thaw(claim)
            await self._report_failure(claim, "CANCELLED", "The sleep was cancelled.")
        else:
            LOG.warning("%s: another agent has taken over", claim.operation)
        await asyncio.wait([job])

    async def _report(self, claim: Claim, result: CaptureResult) -> None:
        stays = False
        try:
            left_s = _left_s(claim)
            within_s = claim.thaw_after_s if left_s is None else left_s
            answer = await self._tasks.report(claim.operation, "result", _result(claim, result), within_s=within_s)
            stays = bool(answer["stay_frozen"])
            await asyncio.to_thread(failpoints.hit, "agent.reported")
        except (StaleFence, Unavailable) as error:
            LOG.warning("%s: the result was not taken: %s", claim.operation, error)
        if not stays:
            await self._thaw(claim)

    async def _report_failure(self, claim: Claim, code: str, message: str) -> None:
        body = {"fence": claim.fence, "code": code, "message": message}
        try:
            await self._tasks.report(claim.operation, "failure", lambda: body, within_s=FAILURE_WITHIN_S)
        except (StaleFence, Unavailable) as error:
            LOG.warning("%s: the failure was not taken: %s", claim.operation, error)

    async def _beat(self, claim: Claim) -> Verdict:
        """Report progress until the platform wants the capture ended."""
        while True:
            body = {"fence": claim.fence, "step": claim.step, "bytes": claim.done, "bytes_total": claim.total}
            try:
                if await self._tasks.progress(claim.operation, body):
                    return Verdict.CANCELLED
            except StaleFence:
                return Verdict.TAKEN_OVER
            except Unavailable as error:
                LOG.debug("%s: heartbeat lost: %s", claim.operation, error)
            await asyncio.sleep(float(claim.content["heartbeat_s"]))


async def settle(tasks: Tasks, ground: Ground) -> None:
    """Leave nothing frozen that an earlier agent froze, or this one that ends, but for what the platform is removing.

    An api that is away is not waited for: what it was promised thaws at its deadline.
    """
    for left in await ground.thaw_all():
        try:
            if await tasks.may_thaw(left.operation, left.fence):
                await ground.thaw_left(left)
        except (StaleFence, Unavailable) as error:
            LOG.warning("%s stays frozen until its lease ends: %s", left.operation, error)


def _result(claim: Claim, result: CaptureResult) -> Callable[[], Mapping[str, Any]]:
    names = ("digest", "diff_id", "size_bytes", "uncompressed_bytes")
    body = {
        "fence": claim.fence,
        "digest": result.digest,
        "config_digest": result.config_digest,
        "layers": [{name: getattr(layer, name) for name in names} for layer in result.layers],
        "entries": result.entries,
        "changed": result.changed,
        "skipped": list(result.skipped),
    }
    return lambda: {**body, "frozen_s": _left_s(claim)}


def _log(claim: Claim, result: CaptureResult) -> None:
    frozen_s = _now() - claim.frozen_at if claim.frozen_at is not None else 0.0
    told = (claim.operation, result.digest, result.bytes_read, _now() - claim.begun, frozen_s)
    LOG.info("%s: saved as %s, %d bytes read, in %.3f s, frozen for %.3f s of it", *told)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _left_s(claim: Claim) -> float | None:
    """Return for how many seconds from now nobody thaws the workspace; None where it is not frozen."""
    if claim.frozen_until is None:
        return None
    return max(claim.frozen_until - _now(), 0.0)


def _progress(claim: Claim) -> Progress:
    def report(done: int, total: int) -> None:
        claim.done, claim.total = done, total

    return report


def _code(error: Exception) -> str:
    codes = {
        RegistryFull: "REGISTRY_FULL",
        RegistryUnavailable: "REGISTRY_UNAVAILABLE",
        CorruptImage: "NOT_READ_BACK",
        PlaceError: "NOT_FROZEN",
        CaptureFailed: "NOT_SAVED",
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), "FAILED")
