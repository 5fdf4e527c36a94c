"""What keeps images: a layout on disk and a registry answer to the same names.

Blobs are of a repository, as in a registry; a layout shares them between all of its repositories.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from torpor_hub.oci.images import Descriptor, Image


class BlobWriter(Protocol):
    """A blob being written: :meth:`publish` puts it in place, and leaving the context without that removes it."""

    def __enter__(self) -> Self:
        """Return the writer."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not published."""
        ...

    def write(self, content: bytes) -> None:
        """Append ``content``, all of it."""
        ...

    def publish(self, digest: str) -> None:
        """Put the blob under ``digest``, which the writer vouches for, in place of one that is there already."""
        ...


class ImageStore(Protocol):
    """Keeps manifests and the blobs that they name. Everything may be repeated.

    A store that is elsewhere raises :class:`torpor_hub.errors.RegistryUnavailable` from any of these when it does not answer,
    and :class:`torpor_hub.errors.RegistryFull` when it has no space left.
    """

    def blob_writer(self, repository: str) -> BlobWriter:
        """Return a writer of a new blob, to be used as a context."""
        ...

    def put_blob(self, repository: str, content: bytes) -> str:
        """Return the digest of ``content``, which is now a blob."""
        ...

    def borrow_blob(self, repository: str, source: str, blob: Descriptor) -> None:
        """Make a blob of the repository ``source`` one of ``repository`` too, by reference where that can be done.

        Raises:
            ImageMissing: the source has no such blob.
        """
        ...

    def open_blob(self, repository: str, digest: str) -> BinaryIO:
        """Return the bytes of a blob as an open file.

        Raises:
            ImageMissing: there is no such blob.
        """
        ...

    def has_blob(self, repository: str, digest: str, size_bytes: int) -> bool:
        """Return whether a blob of this digest and size is there; its content is not read."""
        ...

    def put_manifest(self, repository: str, tag: str, manifest: bytes) -> str:
        """Return the digest of ``manifest``, now known as ``repository:tag``; repeating it changes nothing.

        Raises:
            ImageMissing: a blob that it names is not there.
        """
        ...

    def read_manifest(self, repository: str, digest: str) -> bytes:
        """Return the bytes of the manifest ``digest`` of ``repository``.

        Raises:
            ImageMissing: the repository has no such manifest.
            CorruptImage: the bytes do not have that digest.
        """
        ...

    def read_config(self, repository: str, digest: str) -> bytes:
        """Return the bytes of the configuration of the image ``digest``; raises as :meth:`read_image` does."""
        ...

    def read_image(self, repository: str, digest: str) -> Image:
        """Return what the manifest ``digest`` and its configuration say.

        Raises:
            ImageMissing: the repository has no such manifest, or the configuration is not there.
            CorruptImage: one of them does not read back as it was written.
        """
        ...

    def verify(self, repository: str, digest: str, progress: Callable[[int], None] | None = None) -> Image:
        """Return the image after it was read back from where it is kept.

        ``progress`` is called with the bytes read so far and may raise to stop.

        Raises:
            ImageMissing: the manifest or a blob is not there.
            CorruptImage: something does not read back as it was written; the text names it.
        """
        ...

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Forget the manifest ``digest`` of ``repository`` under all its tags; gone already is success."""
        ...
