"""A blob sent to a registry while it is made, in chunks; a connection that breaks is taken up where the registry has got to.

The sending runs in a thread of its own, one chunk behind the writer, so that compressing and sending overlap and no more than
three chunks are in memory. Source: OCI distribution specification 1.1, "Pushing a blob in chunks".
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx

from torpor_hub.errors import CorruptImage, RegistryFull, RegistryUnavailable
from torpor_hub.oci.registry_auth import push
from torpor_hub.oci.transport import LASTING, Transport, tries

LOG = logging.getLogger(__name__)
CHUNK_BYTES = 8 * 1024 * 1024
COMMIT_TIMEOUT = httpx.Timeout(connect=5.0, read=300.0, write=30.0, pool=None)
"""A registry on an object store copies a large blob before it answers."""

RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
BINARY = {"Content-Type": "application/octet-stream"}


class Upload:
    """A blob being sent to ``repository``: :meth:`publish` puts it in place, and leaving the context without that cancels it.

    ``location`` is of a session that the registry has opened already.
    """

    def __init__(self, transport: Transport, repository: str, location: str | None = None) -> None:
        self._transport = transport
        self._repository = repository
        self._scopes = (push(repository),)
        self._location = location
        self._sent = 0
        self._buffer = bytearray()
        self._sender = ThreadPoolExecutor(1, "upload")
        self._sending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sender.shutdown(wait=True)
        if self._location is not None:
            self._cancel()

    def write(self, content: bytes) -> None:
        """Append ``content``; it is sent when there is enough of it.

        Raises:
            RegistryFull: the registry has no space left.
            RegistryUnavailable: an earlier chunk could not be sent.
        """
        self._buffer += content
        while len(self._buffer) >= CHUNK_BYTES:
            self._settle()
            chunk = bytes(memoryview(self._buffer)[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]
            self._sending = self._sender.submit(self._send, chunk)

    def publish(self, digest: str) -> None:
        """Send the rest, and have the registry check the whole against ``digest``.

        Raises:
            CorruptImage: what arrived has another digest.
            RegistryFull: the registry has no space left.
            RegistryUnavailable: it does not answer, or has lost the upload.
        """
        self._settle()
        rest = bytes(self._buffer)
        if self._sent and rest:
            self._send(rest)
            rest = b""
        self._commit(digest, rest)
        self._location = None

    def _settle(self) -> None:
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result()

    def _open(self) -> str:
        if self._location is None:
            path = f"/v2/{self._repository}/blobs/uploads/"
            answer = self._transport.send("POST", path, scopes=self._scopes, accept={202}, repeat=True)
            self._location, self._sent = self._of(answer), 0
        return self._location

    def _send(self, chunk: bytes) -> None:
        """Send one chunk, and after a failure what of it the registry has not got."""
        start, end = self._sent, self._sent + len(chunk)
        for pause_s in tries():
            location = self._open()
            headers = {**BINARY, "Content-Range": f"{self._sent}-{end - 1}"}
            try:
                answer = self._once("PATCH", location, headers=headers, content=chunk[self._sent - start :])
                if answer.status_code in (201, 202, 204):
                    self._location, self._sent = self._of(answer), end
                    return
                failure = self._transport.unexpected("PATCH", answer)
            except RegistryUnavailable as error:
                failure = error
            if pause_s is None or isinstance(failure, LASTING):
                raise failure
            time.sleep(pause_s)
            self._resume(start, end)
            if self._sent == end:
                return

    def _resume(self, start: int, end: int) -> None:
        """Learn how much of ``start`` to ``end`` has arrived.

        A session that has nothing says ``0-0``, as one of a single byte does: where nothing had been acknowledged before, a
        new one is opened.
        """
        if start == 0:
            self._cancel()
            self._location, self._sent = None, 0
            return
        answer = self._transport.send("GET", self._location or "", scopes=self._scopes, accept={204, 404}, repeat=True)
        known = RANGE.fullmatch(answer.headers.get("range", ""))
        arrived = int(known[1]) + 1 if known else -1
        if answer.status_code == 404 or not start <= arrived <= end:
            raise RegistryUnavailable(
                f"The registry {self._transport.address.host} has lost an upload to {self._repository} after {start} bytes;"
                " try again."
            )
        self._location, self._sent = self._of(answer), arrived

    def _commit(self, digest: str, rest: bytes) -> None:
        for pause_s in tries():
            location = self._open()
            url = httpx.URL(self._transport.url(location)).copy_merge_params({"digest": digest})
            request: dict[str, Any] = {"headers": BINARY, "content": rest, "timeout": COMMIT_TIMEOUT}
            try:
                answer = self._once("PUT", str(url), **request)
                if answer.status_code == 201:
                    return
                failure = self._transport.unexpected("PUT", answer)
                if answer.status_code == 400 and not isinstance(failure, RegistryFull):
                    raise CorruptImage(f"What arrived for the blob {digest} is not what was sent. {failure}")
            except RegistryUnavailable as error:
                failure = error
            if pause_s is None or isinstance(failure, LASTING):
                raise failure
            time.sleep(pause_s)
            if self._is_there(digest):
                return
            if not self._sent:
                self._cancel()
                self._location = None

    def _is_there(self, digest: str) -> bool:
        path = f"/v2/{self._repository}/blobs/{digest}"
        answer = self._transport.send("HEAD", path, scopes=self._scopes, accept={200, 404}, repeat=True)
        return answer.status_code == 200

    def _cancel(self) -> None:
        """Give the registry its space back, as far as it answers: else it keeps what has arrived for days."""
        if self._location is None:
            return
        with contextlib.suppress(RegistryUnavailable):
            if self._once("DELETE", self._location).status_code < 400:
                return
            # The location is stale where a chunk has broken off: the session tells its newest.
            newest = self._once("GET", self._location)
            if "location" in newest.headers:
                self._once("DELETE", newest.headers["location"])
            return
        LOG.warning("an upload to %s could not be cancelled: %s", self._repository, self._transport.address.host)

    def _once(self, method: str, location: str, **request: Any) -> httpx.Response:
        return self._transport.once(method, location, scopes=self._scopes, **request)

    def _of(self, answer: httpx.Response) -> str:
        location = answer.headers.get("location", "")
        if not location:
            raise RegistryUnavailable(
                f"The registry {self._transport.address.host} opened an upload to {self._repository} without saying where;"
                " look into its log, then try again."
            )
        return str(location)
