"""One small client of the Kubernetes API: JSON in, JSON out, every request under a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from torpor_hub.cluster import answers, kinds
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.kinds import Json, Kind
from torpor_hub.errors import ClusterError, ClusterUnavailable

FIELD_MANAGER = "torpor"
DEADLINE_S = 15.0
CONNECT_S = 5.0
WATCH_S = 30.0
# A watch that is told to end after ``WATCH_S`` and has not: the server hangs.
WATCH_SLACK_S = 5.0
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
Propagation = Literal["Background", "Foreground", "Orphan"]
Change = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


@dataclass(frozen=True)
class Listing:
    """All objects that matched, and the resource version from which a watch goes on."""

    items: tuple[Json, ...]
    version: str


@dataclass(frozen=True)
class Event:
    """One change that a watch reports. A ``BOOKMARK`` changes nothing but the version."""

    change: Change
    thing: Json

    @property
    def version(self) -> str:
        """The resource version from which a later watch goes on."""
        return str(self.thing["metadata"]["resourceVersion"])


class Cluster:
    """The API server. Every method raises ``ClusterUnavailable`` where nothing is known, and ``Denied`` where a rule forbids.

    A change that ends as ``ClusterUnavailable`` may have been made. A server that accepts a request and then hangs ends as
    that after ``deadline_s``.
    """

    def __init__(self, access: Access, *, deadline_s: float = DEADLINE_S) -> None:
        self._access = access
        self._deadline_s = deadline_s
        self._http = httpx.AsyncClient(
            base_url=access.server,
            verify=access.tls,
            trust_env=False,
            timeout=httpx.Timeout(deadline_s, connect=CONNECT_S, pool=deadline_s),
            # Every watch holds a connection of its own.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Json:
        """Return one object.

        Raises:
            ObjectMissing: when there is none.
        """
        return await self._json("GET", kind.path(namespace, name), f"{kind.name} {name}")

    async def list(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> Listing:
        """Return all objects of a kind that match the selectors, in one namespace or (where it is empty) in all.

        It is a live list, not a cached one: an object that was there when this was called is in it. A namespace that does not
        exist gives an empty list.
        """
        query = {"labelSelector": labels, "fieldSelector": fields}
        content = await self._json("GET", kind.path(namespace), f"{kind.plural} of {namespace or 'all'}", query=query)
        items = content.get("items") or ()
        named = ({"apiVersion": kind.api, "kind": kind.name, **item} for item in items)
        return Listing(tuple(without_managed_fields(item) for item in named), content["metadata"]["resourceVersion"])

    async def create(self, thing: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        """Make an object and return it as the server has it. ``dry_run`` passes all admission and makes nothing.

        Raises:
            ObjectExists: when one of that name is there already.
            ObjectMissing: when its namespace is not there.
        """
        namespace, name = kinds.place(thing)
        kind = kinds.of(thing)
        path, query = kind.path(namespace), {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else ""}
        return await self._json("POST", path, f"{kind.name} {name}", content=thing, query=query)

    async def apply(self, thing: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        """Make an object, or make it what ``thing`` says in all fields that the platform ever applied; return the result.

        A field that is left out of a later ``thing`` is removed, others' fields stay, and others' values of ours are taken
        back. Applying what is there already changes nothing, not even the resource version.

        Raises:
            ObjectMissing: when its namespace is not there.
        """
        namespace, name = kinds.place(thing)
        kind = kinds.of(thing)
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "dryRun": "All" if dry_run else ""}
        path = kind.path(namespace, name)
        return await self._json("PATCH", path, f"{kind.name} {name}", content=thing, query=query, media_type=APPLY)

    async def patch(self, kind: Kind, name: str, change: Mapping[str, Any], namespace: str = "") -> Json:
        """Merge ``change`` into an object (RFC 7386: None removes) and return it. A ``resourceVersion`` in it must still hold.

        Raises:
            ObjectMissing: when there is none.
            ObjectConflict: when it was changed since that version.
        """
        path = kind.path(namespace, name)
        return await self._json("PATCH", path, f"{kind.name} {name}", content=change, media_type=MERGE)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        grace_s: int | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        """Ask for the end of an object, of exactly the one with ``uid`` where it is given. It may take until it is gone.

        Raises:
            ObjectMissing: when there is none.
            ObjectConflict: when the object of that name has another UID.
        """
        options: Json = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        await self._json("DELETE", kind.path(namespace, name), f"{kind.name} {name}", content=options)

    async def logs(self, pod: str, namespace: str, *, lines: int, container: str = "") -> str:
        """Return the last lines that a pod's container wrote; empty while it has not been started.

        Raises:
            ObjectMissing: when there is no such pod, or its node has forgotten it.
        """
        query = {"tailLines": str(lines), "container": container, "limitBytes": str(lines * 4096)}
        path = f"{kinds.POD.path(namespace, pod)}/log"
        answer = await self._send("GET", path, f"Log of {pod}", query=query)
        if answer.status_code == httpx.codes.BAD_REQUEST and b"waiting to start" in answer.content:
            return ""
        if answer.is_error:
            raise answers.error(answer.status_code, answer.content, f"Log of {pod}")
        return answer.text

    async def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        version: str,
        labels: str = "",
        fields: str = "",
        within_s: float = WATCH_S,
    ) -> AsyncGenerator[Event, None]:
        """Yield the changes since ``version`` as they come, for about ``within_s``; then a later watch goes on from the last one.

        A bookmark comes first, as soon as the server has taken the watch up, and another before the end, so that the version
        does not age. A server that hangs is noticed after ``within_s`` and a little more.

        Raises:
            VersionExpired: when the server has forgotten what came after ``version``. List again.
        """
        query = _watch_query(version, labels, fields, within_s)
        timeout = httpx.Timeout(within_s + WATCH_SLACK_S, connect=CONNECT_S)
        what = f"Watch of {kind.plural} in {namespace or 'all'}"
        request = self._request("GET", kind.path(namespace), query=query, timeout=timeout)
        answer = await self._answer(request, what, stream=True)
        try:
            if answer.is_error:
                raise answers.error(answer.status_code, await answer.aread(), what)
            yield Event("BOOKMARK", {"metadata": {"resourceVersion": version}})
            async for line in answer.aiter_lines():
                yield _event(line, what)
        except httpx.HTTPError as error:
            raise _unavailable(what, error) from error
        finally:
            await answer.aclose()

    async def _json(
        self,
        method: str,
        path: str,
        what: str,
        *,
        content: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> Json:
        answer = await self._send(method, path, what, content=content, query=query, media_type=media_type)
        if answer.is_error:
            raise answers.error(answer.status_code, answer.content, what)
        return without_managed_fields(answers.parse(answer.content, what))

    async def _send(self, method: str, path: str, what: str, **parts: Any) -> httpx.Response:
        return await self._answer(self._request(method, path, **parts), what)

    async def _answer(self, request: httpx.Request, what: str, *, stream: bool = False) -> httpx.Response:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._http.send(request, stream=stream)
        except (httpx.HTTPError, TimeoutError) as error:
            raise _unavailable(what, error) from error

    def _request(
        self,
        method: str,
        path: str,
        *,
        content: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        media_type: str = "application/json",
        timeout: httpx.Timeout | None = None,
    ) -> httpx.Request:
        token = self._access.token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if content is not None:
            headers["Content-Type"] = media_type
        return self._http.build_request(
            method,
            path,
            params={key: value for key, value in (query or {}).items() if value},
            json=content,
            headers=headers,
            timeout=timeout or self._http.timeout,
        )


def without_managed_fields(thing: Json) -> Json:
    """Return the object without the record of who set which field: half of its bytes, and nobody reads it."""
    thing.get("metadata", {}).pop("managedFields", None)
    return thing


def _watch_query(version: str, labels: str, fields: str, within_s: float) -> dict[str, str]:
    return {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(max(1, round(within_s))),
        "labelSelector": labels,
        "fieldSelector": fields,
    }


def _event(line: str, what: str) -> Event:
    content = answers.parse(line.encode(), what)
    if content["type"] == "ERROR":
        raise answers.of_status(content["object"], what)
    return Event(content["type"], without_managed_fields(content["object"]))


def _unavailable(what: str, error: Exception) -> ClusterError:
    reason = str(error) or type(error).__name__
    return ClusterUnavailable(f"{what}: the cluster's API server does not answer ({reason}).")
