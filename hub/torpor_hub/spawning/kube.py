"""Workspaces as pods of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Iterable, Mapping
from typing import Any

from jupyterhub.spawner import SpawnException
from kubespawner import KubeSpawner

from torpor_hub import errors, failpoints
from torpor_hub.cluster import access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json
from torpor_hub.cluster.watch import Watch
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.workspaces import Phase
from torpor_hub.podspecs import diagnose, names
from torpor_hub.spawning import adoption, hindrances, pods
from torpor_hub.spawning.hindrances import Standing
from torpor_hub.spawning.kube_pod import pod_of
from torpor_hub.spawning.mixin import GRANTED_PROGRESS, TorporSpawner
from torpor_hub.spawning.platform import Grant
from torpor_hub.spawning.pods import Pods
from torpor_hub.spawning.refusals import refused

GIVE_UP_S = 1
KNOWN_S = 5.0
RETRY_S = 1.0
PROBE_S = 0.15
LOOK_S = 1.0
# What a pod waits for may come at the last moment; what has ended never comes back.
STANDS_S = 2.0
WORD_S = 1.5
PLACED, BEGUN = GRANTED_PROGRESS + 6, GRANTED_PROGRESS + 12
REMOVED = Cause("REMOVED", "The workspace's pod was removed while it started.", "Start it again.")


@functools.cache
def pods_of_cluster(relax_x509: bool) -> Pods:
    """Return what all spawners of this hub see the cluster through.

    Raises:
        StartupError: when no cluster is named.
    """
    return Pods(Cluster(access.find(relax_x509=relax_x509)))


class TorporKubeSpawner(TorporSpawner, KubeSpawner):  # type: ignore[misc] # kubespawner has no types
    """Runs a workspace's server as a pod, which outlives the hub. It makes pods and adopts them; it never removes one.

    Of KubeSpawner it takes what a server's state and variables are. What a pod is, how it is made and how it is watched is the
    platform's own: KubeSpawner deletes a pod of the same name, takes an error for a stop and lists all pods every ten seconds.
    """

    handle = ""

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self._pod: Json | None = None
        self._changed = asyncio.Event()
        self._ended_with: int | None = None
        self._cause: Cause | None = None
        self._start_failed = False
        self._noticing: asyncio.Future[Any] | None = None

    @property
    def cluster(self) -> Pods:
        """What this hub sees of the cluster."""
        return pods_of_cluster(self.platform.settings.cluster.relax_x509)

    @property
    def will_resume(self) -> bool:
        """Whether the hub keeps token and OAuth client: while the server may still run, unless its start has failed."""
        return super().will_resume and not self._start_failed

    async def bring_up(self, grant: Grant) -> str:
        """Make the run's pod or adopt the one that lives already, and return its URL once it answers."""
        self._begin(grant)
        pod = await self._adopt_or_create(grant)
        self._take_up(pod)
        self.save_state()
        within_s = self.platform.settings.limits.start_s
        url = await self._come_up(time.monotonic() + within_s)
        if url:
            return url
        sentence = f"The workspace's server has not answered within {within_s:.0f} seconds."
        raise refused(sentence, "It goes on, and the next start takes it up.", reason="timeout", status=500)

    def is_running(self) -> bool | None:
        """Return whether the server runs; None where nobody can tell."""
        if not self.grant_id or self._ended_with is not None:
            return False
        return True if self._seen() is not None else None

    async def poll(self) -> int | None:
        """Return None while the server runs or nobody can tell, else its exit status, 0 where it is unknown."""
        if self.is_running() is None:
            try:
                await self._learn_of_end()
            except (errors.ClusterError, LookupError, TypeError, ValueError) as error:
                self.log.warning("%s: nobody knows whether its pod runs: %s", self.workspace_id, error)
        return await super().poll()

    def exit_status(self) -> int:
        """Return the exit status of a server that has ended; 0 where it is unknown."""
        return self._ended_with or 0

    async def get_url(self) -> str:
        """Return the server's URL at the start of a hub, once it answers.

        JupyterHub waits for its answer next and would not notice its end; one that has ended is given up at once.
        """
        recorded: str = self.server.url
        try:
            return await self._come_up(float("inf"), recorded=recorded)
        except SpawnException as error:
            self.log.warning("%s: it does not come up: %s", self.workspace_id, error)
            self.http_timeout = GIVE_UP_S
            return recorded

    def get_state(self) -> dict[str, Any]:
        """Return what a restarted hub needs to know the server again."""
        return super().get_state() | ({"handle": self.handle} if self.grant_id else {})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what ``get_state`` returned."""
        super().load_state(state)
        self.handle = state.get("handle", "")
        if self.grant_id:
            self._follow()

    def clear_state(self) -> None:
        """Forget the server; the pod, if there is one, is left to whoever removes it."""
        self.cluster.leave(self.namespace, self.pod_name, self)
        super().clear_state()
        self.handle = ""
        self._pod = self._ended_with = self._cause = None
        self._start_failed = False

    async def delete_forever(self) -> None:
        """Do nothing: the home belongs to the platform, and so does all else that a deleted workspace leaves."""

    def _begin(self, grant: Grant) -> None:
        try:
            prefix = self.platform.settings.cluster.namespace_prefix
            self.namespace, self.pod_name = names.namespace(prefix, grant.run.tenant), names.pod(grant.run.workspace_id)
        except errors.ClusterError as error:
            raise hindrances.of_error(error).refusal() from error
        self.grant_id, self.image = grant.run.grant_id, grant.run.image
        self._follow()
        # A hub that ends before the pod is noted looks for it by its labels.
        self.save_state()

    def _follow(self) -> None:
        self.cluster.follow(self.namespace, self.pod_name, self, self._pod_changed)

    def _pod_changed(self) -> None:
        self._changed.set()
        if self.ready and self.cluster.misses(self.namespace, self.pod_name, self.handle):
            self._noticing = asyncio.ensure_future(self.poll_and_notify())

    async def _adopt_or_create(self, grant: Grant) -> Json:
        """Return the workspace's pod: the one that lives already, else a new one once no other is left."""
        standing = Standing()
        while True:
            try:
                found = await self.cluster.of_workspace(self.namespace, self.workspace_id)
                pod = adoption.adoptable(found, self.own_token, self.grant_id)
                if pod is not None:
                    return pod
                if not found:
                    return await self._create(grant)
                hindrance, reason = adoption.why_not(found, self.own_token), None
            except errors.ClusterError as error:
                hindrance, reason = hindrances.of_error(error), error
            self.log.info("%s: no pod yet: %s", self.workspace_id, reason or hindrance.cause.message)
            self.tell(GRANTED_PROGRESS, hindrance.cause.message)
            if standing.for_s(hindrance.cause.reason) >= hindrance.passes_s:
                await self._give_up(hindrance.cause)
                raise hindrance.refusal() from reason
            # Asking again keeps what was reserved for this start.
            grant = await self._ask_for_grant(hindrance.cause)
            await self._change(RETRY_S)

    async def _create(self, grant: Grant) -> Json:
        self.use_own_token(grant.run.grant_id)
        self.save_state()
        pod = pod_of(
            grant.run,
            self.platform.settings,
            args=self.get_args(),
            environment=self.get_env() | {"USER": self.user.name},
            base_url=self.server.base_url,
            token=self.api_token,
        )
        made = await self.cluster.create(pod)
        await asyncio.to_thread(failpoints.hit, "spawner.launched")
        return made

    def _take_up(self, pod: Json) -> None:
        self._pod, self.handle, self.grant_id = pod, pods.uid(pod), pods.label(pod, names.GRANT)
        if self.own_token(self.grant_id) != self.api_token:
            self.use_own_token(self.grant_id)

    async def _come_up(self, until: float, *, recorded: str = "") -> str:
        """Return the server's URL once it answers; empty when ``until`` (monotonic) has passed.

        ``recorded`` is where it answered before, for as long as the cluster does not say where it is.

        Raises:
            SpawnException: once it is certain that it will not answer.
        """
        standing = Standing()
        async with self.cluster.events_of(self.namespace, self.handle) as events:
            while time.monotonic() < until:
                pod = await self._look()
                if pod is not None and not pods.is_leaving(pod):
                    await self._judge(pod, standing, events)
                url = self._url(pod) if pod is not None else recorded
                if url and await self.cluster.answers(f"{url}api"):
                    return url
                await self._change(PROBE_S if url else LOOK_S)
        return ""

    async def _look(self) -> Json | None:
        """Return the server's pod as it is known now; None where nobody knows anything of it.

        Raises:
            SpawnException: when a live list has it no longer.
        """
        self._pod = self._seen() or self._pod
        if self._pod is not None and not self.cluster.misses(self.namespace, self.pod_name, self.handle):
            return self._pod
        try:
            found = await self.cluster.of_workspace(self.namespace, self.workspace_id)
        except errors.ClusterError as error:
            self.log.warning("%s: nobody knows how its pod is: %s", self.workspace_id, error)
            return self._pod
        self._pod = self._own(found)
        if self._pod is None:
            # The controller removes what failed, and may have been quicker.
            raise await self._failure(self._cause or REMOVED)
        return self._pod

    async def _judge(self, pod: Json, standing: Standing, events: Watch) -> None:
        """Tell how the start stands; end it where what stands in its way does not pass.

        Raises:
            SpawnException: with the cause.
        """
        around = diagnose.Surroundings(now_s=time.time(), events=tuple(events.snapshot().objects.values()))
        cause = self._cause = diagnose.diagnose_pod(pod, around)
        stands_s = standing.for_s(cause.reason if cause is not None else "")
        if cause is None:
            begun = pods.has_begun(pod)
            self.tell(BEGUN if begun else PLACED, f"{diagnose.progress(pod)}.")
            return
        self.tell(PLACED, f"{cause.message} {cause.next_step}")
        if pods.is_over(pod) or stands_s >= STANDS_S:
            raise await self._failure(cause, pods.last_words(pod))

    async def _failure(self, cause: Cause, log: str = "") -> SpawnException:
        self._start_failed = True
        if cause.reason in ("NO_ROOM", REMOVED.reason):
            cause = await self._platforms_word() or cause
        return refused(cause.message, cause.next_step, reason=cause.reason.lower(), status=500, log=log)

    async def _platforms_word(self) -> Cause | None:
        """Return what the platform says of the failure, if it soon says anything: it sees the nodes, the hub does not."""
        until = time.monotonic() + WORD_S
        while time.monotonic() < until:
            try:
                workspace = await self.platform.workspace(self.workspace_id)
            except errors.UserError as error:
                self.log.info("%s: the platform has no word on it: %s", self.workspace_id, error)
                return None
            if workspace.phase == Phase.FAILED:
                return Cause(workspace.reason, workspace.message, workspace.next_step)
            await asyncio.sleep(PROBE_S)
        return None

    async def _learn_of_end(self) -> None:
        """Take the server for ended once the watch misses it and a live list agrees. Only an answer proves that."""
        if self.handle:
            known = await self.cluster.known(self.namespace, within_s=KNOWN_S)
            if not known or self._seen() is not None:
                return
        own = self._own(await self.cluster.of_workspace(self.namespace, self.workspace_id))
        if own is None or pods.is_over(own):
            self._ended_with = diagnose.exit_code(own or self._pod or {}) or 0

    def _own(self, found: Iterable[Json]) -> Json | None:
        """Return the server's own pod; where the hub ended before it noted which that is, the one that it would adopt."""
        if self.handle:
            return next((pod for pod in found if pods.uid(pod) == self.handle), None)
        pod = adoption.adoptable(found, self.own_token, self.grant_id)
        if pod is not None:
            self._take_up(pod)
            self.save_state()
        return pod

    def _seen(self) -> Json | None:
        """Return the server's own pod as the watch saw it last, unless it is over."""
        pod = self.cluster.seen(self.namespace, self.pod_name) if self.handle else None
        return pod if pod is not None and pods.uid(pod) == self.handle and not pods.is_over(pod) else None

    def _url(self, pod: Json) -> str:
        """Return where the server will answer; empty before its process runs."""
        address = pods.host(pod) if pods.has_begun(pod) else ""
        return f"http://{address}:{self.port}{self.server.base_url}" if address else ""

    async def _change(self, within_s: float) -> None:
        """Return at the next change of the pod, at the latest after ``within_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        self._changed.clear()
