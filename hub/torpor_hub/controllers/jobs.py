"""The loop for jobs: environments, admission, starts, and the ends of attempts. Facts move states, never the other way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from torpor_hub import failpoints
from torpor_hub.controllers.base import Leadership
from torpor_hub.domain.jobs import LOST, STOPPED, Next, View, decide
from torpor_hub.errors import Conflict, PlaceUnready, RunnerError, TorporError
from torpor_hub.runners.base import JobFact, JobRun, Runner, Salvage
from torpor_hub.services import admission, jobs
from torpor_hub.services.admission import Kept, Open, Start
from torpor_hub.services.attempts import Report, log_key, result_key
from torpor_hub.services.tokens import Signer
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs

LOG = logging.getLogger(__name__)
GRACE_S = 5.0
DELIVERY_S = 1.0
GONE = Report(None, LOST, "The attempt is no longer where it was started.", None)
PLATFORM_STOPPED = Report(None, STOPPED, "The platform was stopped.", None)


class JobController:
    """Makes attempts follow the queue and jobs follow their attempts; every step may be repeated."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        blobs: Blobs,
        signer: Signer,
        runner: Runner,
        leadership: Leadership,
        grace_s: float = GRACE_S,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._settings = settings
        self._runner = runner
        self._signer = signer
        self._lead = leadership
        self._grace_s = grace_s
        self._ending = False
        self._turning = asyncio.Lock()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._missing: dict[str, int] = {}
        self._said: dict[str, str] = {}
        self._steps: Mapping[Next, Callable[[Open, JobFact | None], Awaitable[None]]] = {
            Next.START: self._start,
            Next.END: self._end,
            Next.CLOSE: self._close,
        }

    async def turn(self) -> None:
        """Queue, admit and explain; then take the next step of every attempt, each in a task of its own."""
        async with self._turning:
            if not self._ending:
                await self._turn()

    async def end_all(self) -> None:
        """End every attempt and put its job back into the queue: the platform stops, and no later turn does anything."""
        self._ending = True
        # The turn that is under way may still begin a step: it is not over before that one.
        async with self._turning:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)
            open_attempts = await asyncio.to_thread(self._open)
            await asyncio.gather(*(self._end_with_platform(attempt) for attempt in open_attempts))

    async def settle(self) -> None:
        """Return when no step is under way."""
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _turn(self) -> None:
        await self._lead.record(admission.resolve)
        if await self._lead.record(admission.admit):
            failpoints.hit("jobs.admitted")
        # Listed before the runner is asked: an attempt that the runner then does not know was never started.
        open_attempts = await asyncio.to_thread(self._open)
        facts = await self._runner.facts()
        self._busy = {name: task for name, task in self._busy.items() if not task.done()}
        for attempt in open_attempts:
            fact = facts.get(attempt.name)
            step = decide(self._view(attempt, fact))
            if step is not Next.NOTHING and attempt.name not in self._busy:
                self._busy[attempt.name] = asyncio.create_task(self._take(step, attempt, fact))
            elif fact is not None and fact.alive:
                await self._explain(attempt, fact.message)
        await self._forget_closed(facts)

    def _open(self) -> list[Open]:
        with self._store.read() as tx:
            return admission.open_attempts(tx)

    def _view(self, attempt: Open, fact: JobFact | None) -> View:
        name = attempt.name
        self._missing[name] = 0 if fact is not None else self._missing.get(name, 0) + 1
        return View(
            attempt.state,
            attempt.cancelled,
            known=fact is not None,
            alive=fact.alive if fact is not None else None,
            missing=self._missing[name],
            ended_for_s=attempt.ended_for_s,
        )

    async def _take(self, step: Next, attempt: Open, fact: JobFact | None) -> None:
        try:
            await self._steps[step](attempt, fact)
        except (TorporError, OSError) as error:
            LOG.warning("%s: %s: %s", attempt.name, step, error)

    async def _start(self, attempt: Open, _: JobFact | None) -> None:
        try:
            start = await self._lead.record(lambda tx: admission.start_of(tx, self._settings, attempt.job_id))
            handle = await self._runner.start(self._run(start))
        except PlaceUnready as error:
            await self._explain(attempt, str(error))
            return
        except Conflict as error:
            await self._give_up(attempt, str(error), reason="image_missing")
            return
        except RunnerError as error:
            await self._give_up(attempt, str(error), reason=LOST)
            return
        failpoints.hit("jobs.started")
        await self._lead.record(lambda tx: admission.started(tx, attempt.job_id, attempt.number, handle))

    async def _give_up(self, attempt: Open, text: str, *, reason: str) -> None:
        await self._runner.end(attempt.name, "", grace_s=0)
        job_id, number = attempt.job_id, attempt.number
        await self._lead.record(lambda tx: admission.start_failed(tx, job_id, number, text, reason=reason))

    async def _explain(self, attempt: Open, message: str) -> None:
        """Say what an attempt waits for that does not come up; each sentence once."""
        if self._said.get(attempt.name, "") != message:
            await self._lead.record(lambda tx: admission.explain_start(tx, attempt.job_id, message))
            self._said[attempt.name] = message

    def _run(self, start: Start) -> JobRun:
        row, now = start.job, self._store.clock()
        return JobRun(
            job_id=row.id,
            attempt=row.attempt,
            ranks=row.ranks,
            kind=row.kind,
            tenant=start.tenant,
            user=start.user,
            amount=jobs.amount_of(row),
            environment=start.environment,
            token=self._signer.for_attempt(start.token_for, now),
            reader_token=self._signer.for_reader(start.token_for, now),
            api_url=self._settings.api_url,
            timeout_s=row.spec["timeout_s"],
            variables={"TORPOR_GRACE_S": f"{self._grace_s:g}"},
            tenant_id=row.tenant_id,
            user_id=row.user_id,
            image=start.image,
            mounts=start.mounts,
        )

    async def _end(self, attempt: Open, fact: JobFact | None) -> None:
        handle = fact.handle if fact is not None else attempt.handle
        await self._runner.end(attempt.name, handle, grace_s=self._grace_s + DELIVERY_S)

    async def _close(self, attempt: Open, fact: JobFact | None) -> None:
        handle = fact.handle if fact is not None else attempt.handle
        report = _report(fact) if fact is not None else GONE
        # Whatever the attempt left behind is ended before what it held is called free.
        await self._runner.end(attempt.name, handle, grace_s=0)
        failpoints.hit("jobs.finished")
        await self._finish(attempt, report)

    async def _end_with_platform(self, attempt: Open) -> None:
        await self._runner.end(attempt.name, attempt.handle, grace_s=self._grace_s + DELIVERY_S)
        fact = (await self._runner.facts()).get(attempt.name)
        known = fact is not None and fact.alive is False and fact.reason != LOST
        await self._finish(attempt, _report(fact) if fact is not None and known else PLATFORM_STOPPED)

    async def _finish(self, attempt: Open, report: Report) -> None:
        """Take over what the attempt did not deliver itself, record its end, release what it held, and remove it."""
        have = await self._lead.record(lambda tx: admission.log_end(tx, attempt))
        left = await self._runner.salvage(attempt.name, log_from=have)
        kept = await asyncio.to_thread(self._keep, attempt, have, left)
        await self._lead.record(lambda tx: admission.close(tx, attempt.job_id, attempt.number, report, kept))
        await self._runner.forget(attempt.name)
        self._missing.pop(attempt.name, None)
        self._said.pop(attempt.name, None)

    def _keep(self, attempt: Open, log_from: int, left: Salvage) -> Kept:
        log = result = None
        if left.log:
            log = self._blobs.put(log_key(attempt.job_id, attempt.number, 0, log_from), [left.log])
        if left.result is not None:
            result = self._blobs.put(result_key(attempt.job_id, attempt.number), [left.result])
        return Kept(log_from, log, result)

    async def _forget_closed(self, facts: Mapping[str, JobFact]) -> None:
        """Remove what a crash left between the end of an attempt and its removal."""
        over = [name for name, fact in facts.items() if fact.alive is False and name not in self._busy]
        if over:
            closed = await self._lead.record(lambda tx: admission.closed_names(tx, over))
            for name in closed:
                await self._runner.forget(name)


def _report(fact: JobFact) -> Report:
    return Report(fact.exit_code, fact.reason, fact.message, dict(fact.exception) if fact.exception else None)
