"""One claimed task from its child's first word to the report: deadlines, uploads, heartbeats, cancellation."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import asdict, dataclass
from typing import Any

from torpor_hub import failpoints
from torpor_hub.domain.datasets import FailureCode, Stage
from torpor_hub.errors import PlatformError, StaleFence, Unavailable
from torpor_hub.importer.messages import Failure, Piece, Progress, Result
from torpor_hub.importer.process import Child, start
from torpor_hub.importer.wire import Api, Uploaded

LOG = logging.getLogger(__name__)
DOING = {
    Stage.TESTING.value: "testing the source",
    Stage.SAMPLING.value: "taking a sample",
    Stage.DESCRIBING.value: "describing the dataset",
    Stage.READING.value: "reading the rows",
}


@dataclass
class Where:
    """Where a task is, for the next heartbeat."""

    stage: str
    steps: list[dict[str, Any]]


class Task:
    """A claimed task. ``run`` ends when it is reported, cancelled, or somebody else's."""

    def __init__(self, api: Api, claim: dict[str, Any], roots: list[str]) -> None:
        self._api = api
        self._claim = claim
        self._roots = roots
        self._id, self._fence = str(claim["task"]), int(claim["fence"])
        first = Stage.READING if claim["kind"] == "read" else Stage.TESTING
        self._where = Where(first.value, [])
        self._moved = asyncio.Event()
        self._uploads: dict[str, Uploaded] = {}

    async def run(self) -> None:
        """Work on the task in a child, with a heartbeat beside it; the child is gone when this returns."""
        failpoints.hit("importer.claimed")
        child = await start({**self._claim, "roots": self._roots})
        work, beat = asyncio.create_task(self._work(child)), asyncio.create_task(self._beat())
        try:
            await asyncio.wait((work, beat), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            beat.cancel()
            await child.end()
            ended = await asyncio.gather(work, beat, return_exceptions=True)
        for error in ended:
            self._log(error)

    async def _work(self, child: Child) -> None:
        outcome = await self._follow(child)
        await self._report(outcome)

    async def _follow(self, child: Child) -> Result | Failure:
        """Return how the child's work ended, having uploaded what it handed over."""
        left = self._deadline_s
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            try:
                message = await asyncio.wait_for(child.next(), left)
            except TimeoutError:
                return self._timeout()
            left -= loop.time() - asked
            if message is None:
                return self._crash(await child.exited())
            if isinstance(message, Result | Failure):
                return message
            if isinstance(message, Progress):
                left = left if message.stage == self._where.stage else self._deadline_s
                self._move(message)
            elif isinstance(message, Piece):
                await self._upload(child, message.name)
                # Each piece of a read is progress; how long the api took for it is not the source's time.
                left = self._deadline_s if self._claim["kind"] == "read" else left

    async def _upload(self, child: Child, name: str) -> None:
        content = await asyncio.to_thread(child.take, name)
        self._uploads[name] = await self._api.upload(self._id, self._fence, name, content)
        failpoints.hit("importer.uploaded")
        await child.taken()

    async def _beat(self) -> None:
        """Report progress at once when there is some, and at least every ``heartbeat_s``; return when it is cancelled."""
        every_s = float(self._claim["heartbeat_s"])
        while True:
            self._moved.clear()
            body = {"fence": self._fence, "stage": self._where.stage, "stages": self._where.steps}
            try:
                if await self._api.progress(self._id, body):
                    LOG.info("task %s is cancelled", self._id)
                    return
            except Unavailable as error:
                LOG.warning("no heartbeat of task %s: %s", self._id, error)
                await asyncio.sleep(every_s)
            try:
                await asyncio.wait_for(self._moved.wait(), every_s)
            except TimeoutError:
                continue

    async def _report(self, outcome: Result | Failure) -> None:
        failpoints.hit("importer.finished")
        if isinstance(outcome, Failure):
            body = {"fence": self._fence, "stage": self._where.stage, "stages": self._where.steps, **asdict(outcome)}
            await self._api.failure(self._id, body)
            return
        content = asdict(outcome)
        if outcome.sample is not None:
            content["sample"] = {**outcome.sample, **asdict(self._uploads[outcome.sample["name"]])}
        body = {"fence": self._fence, "stages": self._where.steps, "chunks": len(self._uploads), **content}
        await self._api.result(self._id, body)

    def _move(self, message: Progress) -> None:
        self._where = Where(message.stage, [asdict(step) for step in message.stages])
        self._moved.set()

    @property
    def _deadline_s(self) -> float:
        return float(self._claim["deadline_s"])

    def _timeout(self) -> Failure:
        doing = DOING.get(self._where.stage, "working")
        return Failure(
            FailureCode.TIMEOUT.value,
            f"The source did not answer within {self._deadline_s:g} s while {doing}.",
            "Look whether the store answers, then import again.",
        )

    def _crash(self, status: int) -> Failure:
        doing = DOING.get(self._where.stage, "working")
        if status == -signal.SIGKILL:
            return Failure(
                FailureCode.TOO_LARGE.value,
                f"The connector was killed while {doing}, most likely for its use of memory.",
                "Write smaller row groups, or register a smaller part.",
            )
        how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return Failure(
            FailureCode.UNSUPPORTED.value,
            f"The connector ended {how} while {doing}.",
            "Look into the importer's log.",
        )

    def _log(self, error: BaseException | None) -> None:
        if isinstance(error, StaleFence):
            LOG.info("task %s belongs to another claim by now", self._id)
        elif isinstance(error, PlatformError | Unavailable):
            LOG.error("task %s is given up: %s", self._id, error)
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            LOG.error("task %s failed in the importer", self._id, exc_info=error)
