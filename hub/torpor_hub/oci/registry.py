"""Images in a registry: a client of the OCI distribution specification 1.1, with the same names as a layout on disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
from collections.abc import Callable
from typing import BinaryIO, cast

import httpx

from torpor_hub.errors import CorruptImage, ImageMissing, RegistryUnavailable
from torpor_hub.oci import images
from torpor_hub.oci.images import Descriptor, Image
from torpor_hub.oci.registry_auth import Address, delete, pull, push
from torpor_hub.oci.streams import CHUNK_BYTES
from torpor_hub.oci.transport import Transport
from torpor_hub.oci.uploads import Upload

MANIFESTS = {"Accept": ", ".join((images.MANIFEST, images.INDEX, images.DOCKER_MANIFEST, images.DOCKER_INDEX))}
WHOLE_BYTES = 4 * 1024 * 1024
"""Up to this size a blob is read back whole, in a few milliseconds."""

EDGE_BYTES = 1024
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Registry:
    """The registry at ``address``: an :class:`torpor_hub.oci.store.ImageStore`. May be used by several threads."""

    def __init__(self, address: Address, *, transport: httpx.BaseTransport | None = None) -> None:
        self._transport = Transport(address, transport=transport)
        self._host = address.host

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def blob_writer(self, repository: str) -> Upload:
        """Return a writer of a new blob, to be used as a context."""
        return Upload(self._transport, repository)

    def put_blob(self, repository: str, content: bytes) -> str:
        """Return the digest of ``content``, which is now a blob."""
        digest = images.digest_of(content)
        with self.blob_writer(repository) as blob:
            blob.write(content)
            blob.publish(digest)
        return digest

    def borrow_blob(self, repository: str, source: str, blob: Descriptor) -> None:
        """Have the registry mount a blob of ``source`` into ``repository``; one that does not gets a copy.

        Raises:
            ImageMissing: the source has no such blob.
        """
        answer = self._transport.send(
            "POST",
            f"/v2/{repository}/blobs/uploads/",
            params={"mount": blob.digest, "from": source},
            scopes=(push(repository), pull(source)),
            accept={201, 202},
            repeat=True,
        )
        if answer.status_code == 202:
            with Upload(self._transport, repository, answer.headers.get("location")) as upload:
                _copy(self.open_blob(source, blob.digest), upload, blob.digest)

    def open_blob(self, repository: str, digest: str) -> BinaryIO:
        """Return the bytes of a blob as an open file, which is read once, in order.

        Raises:
            ImageMissing: there is no such blob.
        """
        answer = self._blob("GET", repository, digest, stream=True)
        return cast(
            BinaryIO, io.BufferedReader(_Body(answer, f"The blob {digest} of {self._named(repository)}"), CHUNK_BYTES)
        )

    def has_blob(self, repository: str, digest: str, size_bytes: int) -> bool:
        """Return whether the registry says that a blob of this digest and size is there; it may be wrong."""
        with contextlib.suppress(ImageMissing):
            return self._size_of(repository, digest) == size_bytes
        return False

    def put_manifest(self, repository: str, tag: str, manifest: bytes) -> str:
        """Return the digest of ``manifest``, now known as ``repository:tag``; repeating it changes nothing.

        Raises:
            ImageMissing: a blob that it names is not there.
            CorruptImage: the registry took it for something else.
        """
        digest = images.digest_of(manifest)
        kind = json.loads(manifest).get("mediaType", images.MANIFEST)
        answer = self._transport.send(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            headers={"Content-Type": kind},
            content=manifest,
            scopes=(push(repository),),
            accept={200, 201, 400, 404},
            repeat=True,
        )
        if answer.status_code in (400, 404):
            failure = self._transport.unexpected("PUT", answer)
            if "BLOB_UNKNOWN" in str(failure) or answer.status_code == 404:
                raise ImageMissing(
                    f"A blob that the manifest {digest} names is not in {self._named(repository)}. {failure}"
                )
            raise failure
        named = answer.headers.get("docker-content-digest", digest)
        if named != digest:
            raise CorruptImage(f"The manifest {digest} arrived in {self._named(repository)} as {named}.")
        return digest

    def resolve(self, repository: str, reference: str) -> str:
        """Return the digest of the image that ``reference``, a tag or a digest, means on a machine of this kind.

        Raises:
            ImageMissing: there is no such image, or none for this kind of machine.
        """
        content = self._manifest(repository, reference)
        document = json.loads(content)
        if "manifests" not in document:
            return images.digest_of(content)
        machine = ARCHITECTURES.get(platform.machine(), platform.machine())
        for entry in document["manifests"]:
            made_for = entry.get("platform", {})
            if (made_for.get("os"), made_for.get("architecture")) == ("linux", machine):
                return str(entry["digest"])
        raise ImageMissing(
            f"{self._named(repository)}:{reference} has no image for linux/{machine}; name one that has."
        )

    def read_manifest(self, repository: str, digest: str) -> bytes:
        """Return the bytes of the manifest ``digest`` of ``repository``.

        Raises:
            ImageMissing: the repository has no such manifest.
            CorruptImage: the bytes do not have that digest.
        """
        manifest = self._manifest(repository, digest)
        if images.digest_of(manifest) != digest:
            raise CorruptImage(f"The manifest {digest} of {self._named(repository)} reads back with another digest.")
        return manifest

    def read_config(self, repository: str, digest: str) -> bytes:
        """Return the bytes of the configuration of the image ``digest``; raises as :meth:`read_image` does."""
        named = images.read_descriptors(self.read_manifest(repository, digest))[0]
        return self._whole_blob(repository, named)

    def read_image(self, repository: str, digest: str) -> Image:
        """Return what the manifest ``digest`` and its configuration say.

        Raises:
            ImageMissing: the repository has no such manifest, or the configuration is not there.
            CorruptImage: one of them does not read back as it was written.
        """
        manifest = self.read_manifest(repository, digest)
        return images.read_image(manifest, self._whole_blob(repository, images.read_descriptors(manifest)[0]))

    def verify(self, repository: str, digest: str, progress: Callable[[int], None] | None = None) -> Image:
        """Return the image after it was read back: small blobs whole, of large ones the length and both ends.

        The ends are read because a registry that caches what it once had says of a lost blob that it is there.
        ``progress`` is called with the bytes that are accounted for and may raise to stop.

        Raises:
            ImageMissing: the manifest or a blob is not there.
            CorruptImage: something does not read back as it was written; the text names it.
        """
        manifest, done = self.read_manifest(repository, digest), 0
        named, *layers = images.read_descriptors(manifest)
        config = self._whole_blob(repository, named)
        for blob in layers:
            self._verify_blob(repository, blob)
            done += blob.size_bytes
            if progress:
                progress(done)
        return images.read_image(manifest, config)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Forget the manifest ``digest`` of ``repository`` under all its tags; blobs go when the registry collects them."""
        self._transport.send(
            "DELETE",
            f"/v2/{repository}/manifests/{digest}",
            scopes=(delete(repository),),
            accept={200, 202, 404},
            repeat=True,
        )

    def _verify_blob(self, repository: str, blob: Descriptor) -> None:
        if blob.size_bytes <= WHOLE_BYTES:
            self._whole_blob(repository, blob)
            return
        size = self._size_of(repository, blob.digest)
        if size != blob.size_bytes:
            raise self._corrupt(repository, blob, f"has {size} of {blob.size_bytes} bytes")
        for first in (0, size - EDGE_BYTES):
            self._read_edge(repository, blob, first)

    def _read_edge(self, repository: str, blob: Descriptor, first: int) -> None:
        wanted = {"Range": f"bytes={first}-{first + EDGE_BYTES - 1}"}
        answer = self._blob("GET", repository, blob.digest, stream=True, headers=wanted)
        read = 0
        with contextlib.closing(answer), contextlib.suppress(httpx.HTTPError):
            for chunk in answer.iter_raw(EDGE_BYTES):
                read += len(chunk)
                if read >= EDGE_BYTES:
                    return
        raise self._corrupt(repository, blob, f"breaks off at byte {first + read}")

    def _whole_blob(self, repository: str, blob: Descriptor) -> bytes:
        with self.open_blob(repository, blob.digest) as body:
            try:
                content = body.read(blob.size_bytes + 1)
            except RegistryUnavailable as error:
                raise self._corrupt(repository, blob, "breaks off") from error
        found = "sha256:" + hashlib.sha256(content).hexdigest()
        if (found, len(content)) != (blob.digest, blob.size_bytes):
            raise self._corrupt(repository, blob, f"has the digest {found} and {len(content)} bytes")
        return content

    def _corrupt(self, repository: str, blob: Descriptor, how: str) -> CorruptImage:
        return CorruptImage(f"The blob {blob.digest} of {self._named(repository)} does not read back: it {how}.")

    def _size_of(self, repository: str, digest: str) -> int:
        return int(self._blob("HEAD", repository, digest).headers.get("content-length", -1))

    def _blob(self, method: str, repository: str, digest: str, **request: object) -> httpx.Response:
        path = f"/v2/{repository}/blobs/{digest}"
        scopes = (pull(repository),)
        answer = self._transport.send(method, path, scopes=scopes, accept={200, 206, 404}, repeat=True, **request)  # type: ignore[arg-type]
        if answer.status_code == 404:
            answer.close()
            raise ImageMissing(f"The blob {digest} is not in {self._named(repository)}.")
        return answer

    def _manifest(self, repository: str, reference: str) -> bytes:
        path = f"/v2/{repository}/manifests/{reference}"
        answer = self._transport.send(
            "GET", path, headers=MANIFESTS, scopes=(pull(repository),), accept={200, 404}, repeat=True
        )
        if answer.status_code == 404:
            doubt = self._transport.address.doubt
            raise ImageMissing(f"There is no image {reference} in {self._named(repository)}.{doubt}")
        return answer.content

    def _named(self, repository: str) -> str:
        return f"{self._host}/{repository}"


def copy_image(
    source: Registry, source_repository: str, reference: str, target: Registry, repository: str, tag: str
) -> str:
    """Return the digest of the image ``reference``, which is now ``repository:tag`` too, byte for byte.

    Within one registry its blobs are mounted; else those that the target lacks are streamed. Of an index, the image for this
    kind of machine is copied.

    Raises:
        ImageMissing: there is no such image.
        CorruptImage: a blob did not arrive as it should.
    """
    digest = source.resolve(source_repository, reference)
    manifest = source.read_manifest(source_repository, digest)
    for blob in images.read_descriptors(manifest):
        if source is target:
            target.borrow_blob(repository, source_repository, blob)
        elif not target.has_blob(repository, blob.digest, blob.size_bytes):
            with target.blob_writer(repository) as upload:
                _copy(source.open_blob(source_repository, blob.digest), upload, blob.digest)
    return target.put_manifest(repository, tag, manifest)


def _copy(body: BinaryIO, upload: Upload, digest: str) -> None:
    with body:
        while chunk := body.read(CHUNK_BYTES):
            upload.write(chunk)
    upload.publish(digest)


class _Body(io.RawIOBase):
    """The body of an answer as a file."""

    def __init__(self, answer: httpx.Response, what: str) -> None:
        self._answer = answer
        self._what = what
        self._chunks = answer.iter_raw(CHUNK_BYTES)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        try:
            self._left = self._left or next(self._chunks, b"")
        except httpx.HTTPError as error:
            raise RegistryUnavailable(f"{self._what} breaks off while it is read: {error}; try again.") from error
        count = min(len(self._left), len(buffer))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        self._answer.close()
        super().close()
