"""Attempts of jobs as Jobs in the namespaces of their tenants, each with one pod."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torpor_hub import failpoints
from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json
from torpor_hub.errors import ClusterError, Denied, ObjectConflict, ObjectExists, ObjectMissing, RunnerError
from torpor_hub.podspecs import names, room
from torpor_hub.podspecs.job import COMPONENT, job_object, job_secret
from torpor_hub.podspecs.policy import policy_of, violations
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.runners import job_facts
from torpor_hub.runners.base import JobFact, JobRun, Salvage
from torpor_hub.runners.job_facts import Seen

LOG = logging.getLogger(__name__)
OURS = f"{names.MANAGED},{names.COMPONENT}={COMPONENT}"
LOOK_AGAIN_S = 0.2
# With 0 the API server would forget a pod whose processes still run.
LEAST_GRACE_S = 1
ENDS_WITHIN_S = 30.0
ASK_NODES_EVERY_S = 5.0
SAYS_WHY_AFTER_S = 5.0
LOG_LINES = 500


class KubernetesRunner:
    """Runs attempts as Jobs. A Job stays, with its ended pod, until its attempt is forgotten.

    ``tenants`` returns the names of all tenants, from the records. ``patience_s`` is how long a pod may take to come up where
    something hinders it, such as a cluster without room. Every answer is from a live list: an attempt that a list does not
    have does not exist. Use it within one event loop.
    """

    def __init__(
        self,
        cluster: Cluster,
        shape: ClusterShape,
        tenants: Callable[[], Collection[str]],
        *,
        repositories: str = "torpor",
        patience_s: float,
    ) -> None:
        self._cluster = cluster
        self._shape = shape
        self._tenants = tenants
        self._repositories = repositories
        self._patience_s = patience_s
        self._namespaces: dict[str, str] = {}
        self._nodes: tuple[float, frozenset[str]] = (-math.inf, frozenset())

    async def start(self, run: JobRun) -> str:
        """Make the attempt's Job and Secret and return the Job's UID; what is there already of this name is returned instead.

        Raises:
            RunnerError: when a rule forbids it, or the API server does not answer.
        """
        with _as_runner_error(f"{run.name} cannot be started"):
            wanted = job_object(run, self._shape)
            namespace = wanted["metadata"]["namespace"]
            self._check(wanted, run)
            try:
                made = await self._cluster.create(wanted)
            except ObjectExists:
                made = await self._cluster.get(kinds.JOB, run.name, namespace)
            self._namespaces[run.name] = namespace
            await asyncio.to_thread(failpoints.hit, "runner.started")
            with contextlib.suppress(ObjectExists):
                await self._cluster.create(job_secret(run, self._shape, job_facts.uid(made)))
            return job_facts.uid(made)

    async def facts(self) -> Mapping[str, JobFact]:
        """Return every attempt whose Job is there, by name.

        Raises:
            RunnerError: when one of the tenants' namespaces cannot be listed.
        """
        with _as_runner_error("The cluster's jobs cannot be listed"):
            found = await asyncio.gather(*(self._facts_in(namespace) for namespace in await self._there()))
        return {f"{fact.job_id}-a{fact.attempt}": fact for part in found for fact in part}

    async def end(self, name: str, handle: str, *, grace_s: float) -> None:
        """End the pod of exactly the Job with this UID (empty: of that name) and return once it has ended; gone is success.

        Its Job makes no other then.

        Raises:
            RunnerError: when it does not end, as on a node that is off, or nobody can tell.
        """
        grace = max(LEAST_GRACE_S, math.ceil(grace_s))
        with _as_runner_error(f"{name} could not be ended"):
            namespace = await self._namespace_of(name)
            if namespace is None:
                return
            until = time.monotonic() + grace + ENDS_WITHIN_S
            while not await self._is_over(name, namespace, handle, grace):
                if time.monotonic() > until:
                    raise RunnerError(f"{name} has not ended in {grace + ENDS_WITHIN_S:.0f} s; its node may be off.")
                await asyncio.sleep(LOOK_AGAIN_S)

    async def salvage(self, name: str, *, log_from: int) -> Salvage:
        """Return the last lines that the attempt's pod wrote: the wrapper writes there only what it could not deliver.

        Raises:
            RunnerError: when nobody can tell.
        """
        del log_from
        with _as_runner_error(f"What {name} left behind cannot be read"):
            namespace = await self._namespace_of(name)
            pod = job_facts.newest(await self._pods(namespace, name)) if namespace else None
            # The log of a pod that is being deleted goes at any moment, and the kubelet then says that in its place.
            if namespace is None or pod is None or job_facts.is_pending(pod) or job_facts.is_going(pod):
                return Salvage(b"", None)
            try:
                log = await self._cluster.logs(pod["metadata"]["name"], namespace, lines=LOG_LINES)
            except ClusterError as error:
                # The list was answered: it is the pod that has none, or its node. No attempt stays open for its last lines.
                LOG.warning("%s: %s", name, error)
                log = ""
            return Salvage(log.encode(), None)

    async def forget(self, name: str) -> None:
        """Remove the Job, its pod and its Secret; gone already is success.

        Raises:
            RunnerError: when the attempt still runs, or nobody can tell.
        """
        with _as_runner_error(f"{name} could not be removed"):
            namespace = await self._namespace_of(name)
            if namespace is None:
                return
            job, pods = await self._job(name, namespace), await self._pods(namespace, name)
            if not all(map(job_facts.has_ended, pods)) or (job is not None and not pods and job_facts.may_start(job)):
                raise RunnerError(f"{name} still runs: its Job stays.")
            with contextlib.suppress(ObjectMissing):
                await self._cluster.delete(kinds.JOB, name, namespace, uid=job_facts.uid(job) if job else "")
            with contextlib.suppress(ObjectMissing):
                await self._cluster.delete(kinds.SECRET, name, namespace)
        self._namespaces.pop(name, None)

    async def _is_over(self, name: str, namespace: str, handle: str, grace_s: int) -> bool:
        """Ask for the end of what still runs of the Job; return whether nothing did, and nothing will."""
        job = await self._job(name, namespace)
        if job is not None and handle and job_facts.uid(job) != handle:
            return True
        pods = await self._pods(namespace, name)
        for pod in pods:
            if not job_facts.has_ended(pod) and not job_facts.is_going(pod):
                with contextlib.suppress(ObjectMissing, ObjectConflict):
                    named = pod["metadata"]["name"]
                    await self._cluster.delete(kinds.POD, named, namespace, uid=job_facts.uid(pod), grace_s=grace_s)
        if pods or job is None or job_facts.is_finished(job):
            return all(map(job_facts.has_ended, pods))
        if job_facts.may_start(job):
            with contextlib.suppress(ObjectMissing, ObjectConflict):
                await self._cluster.delete(kinds.JOB, name, namespace, uid=job_facts.uid(job), propagation="Foreground")
        return False

    async def _facts_in(self, namespace: Json) -> list[JobFact]:
        """Return what is known of a namespace's attempts: of one that is being removed, maybe no more than that they were there."""
        place = namespace["metadata"]["name"]
        try:
            seen = await self._seen_in(place)
        except Denied:
            # The right to look went first. One tenant's end must not hide the jobs of all others.
            if "deletionTimestamp" not in namespace["metadata"]:
                raise
            return [job_facts.unknown(name) for name, there in self._namespaces.items() if there == place]
        self._namespaces |= {each.job["metadata"]["name"]: place for each in seen}
        now_s = time.time()
        return [job_facts.fact_of(each, now_s=now_s, patience_s=self._patience_s) for each in seen]

    async def _seen_in(self, namespace: str) -> list[Seen]:
        jobs = (await self._cluster.list(kinds.JOB, namespace, labels=OURS)).items
        if not jobs:
            return []
        # Later than the Jobs: a pod that is not there any more is missed only once its Job knows it too.
        pods = (await self._cluster.list(kinds.POD, namespace, labels=OURS)).items
        nodes = await self._answering() if any("nodeName" in pod["spec"] for pod in pods) else frozenset()
        return [await self._seen(job, pods, nodes) for job in jobs]

    async def _seen(self, job: Json, pods: Sequence[Json], nodes: frozenset[str]) -> Seen:
        pod = job_facts.newest([pod for pod in pods if job_facts.attempt_of(pod) == job_facts.attempt_of(job)])
        node = pod["spec"].get("nodeName", "") if pod is not None else ""
        seen = Seen(job, pod, node_answers=not node or node in nodes)
        if not job_facts.hinders(seen, longer_than_s=SAYS_WHY_AFTER_S, now_s=time.time()):
            return seen
        return Seen(job, pod, await self._events(job, pod), seen.node_answers)

    async def _events(self, job: job_facts.Json, pod: job_facts.Json | None) -> tuple[Json, ...]:
        """Return what was said of a Job and its pod; nothing where nobody can tell, because no more than a reason hangs on it."""
        asked = [f"involvedObject.uid={job_facts.uid(thing)}" for thing in (job, pod) if thing is not None]
        asked.append("involvedObject.kind=PersistentVolumeClaim,reason=ProvisioningFailed")
        with contextlib.suppress(ClusterError):
            namespace = job["metadata"]["namespace"]
            found = [await self._cluster.list(kinds.EVENT, namespace, fields=fields) for fields in asked]
            return tuple(event for listing in found for event in listing.items)
        return ()

    async def _answering(self) -> frozenset[str]:
        """Return the names of the nodes that answer, as of a few seconds ago at most."""
        asked_s, nodes = self._nodes
        if time.monotonic() - asked_s >= ASK_NODES_EVERY_S:
            listed = (await self._cluster.list(kinds.NODE)).items
            nodes = frozenset(node["metadata"]["name"] for node in listed if room.answers(node))
            self._nodes = (time.monotonic(), nodes)
        return nodes

    async def _there(self) -> list[Json]:
        """Return the namespaces of tenants that exist."""
        tenants = await asyncio.to_thread(self._tenants)
        wanted = {names.namespace(self._shape.namespace_prefix, tenant) for tenant in tenants}
        listed = (await self._cluster.list(kinds.NAMESPACE, labels=names.MANAGED)).items
        return [namespace for namespace in listed if namespace["metadata"]["name"] in wanted]

    async def _namespace_of(self, name: str) -> str | None:
        """Return where the attempt's Job is or was; None where there is none in any tenant's namespace."""
        names.job(name)
        if name not in self._namespaces:
            await self.facts()
        return self._namespaces.get(name)

    async def _job(self, name: str, namespace: str) -> Json | None:
        try:
            return await self._cluster.get(kinds.JOB, name, namespace)
        except ObjectMissing:
            return None

    async def _pods(self, namespace: str, name: str) -> Sequence[Json]:
        return (await self._cluster.list(kinds.POD, namespace, labels=names.selector(attempt=name))).items

    def _check(self, job: Json, run: JobRun) -> None:
        """Compare the pod that the Job will make with what the run says that its tenant may have."""
        template = job["spec"]["template"]
        pod = {**template, "metadata": {**template["metadata"], "namespace": job["metadata"]["namespace"]}}
        wrong = violations(pod, policy_of(run, self._shape, self._repositories))
        if wrong:
            raise RunnerError(f"{run.name} is not what its tenant may run: {' '.join(wrong)}")


@contextmanager
def _as_runner_error(what: str) -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        raise RunnerError(f"{what}: {error}") from error
