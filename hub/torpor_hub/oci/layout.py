"""An OCI image layout on disk: blobs by digest, and one index that names manifests as ``repository:tag``.

Many processes may write at a time. A blob appears under its digest by a rename, after its bytes are on the disk; the index
changes under a lock, by a rename too. Source: OCI image-layout specification 1.0.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from torpor_hub.errors import CorruptImage, ImageMissing
from torpor_hub.oci import images
from torpor_hub.oci.images import Descriptor, Image
from torpor_hub.oci.streams import CHUNK_BYTES, shifted

GRACE_S = 24 * 3600.0
VERSION = images.canonical({"imageLayoutVersion": "1.0.0"})


class BlobWriter:
    """A blob being written: :meth:`publish` puts it in place, and leaving the context without that removes it."""

    def __init__(self, folder: Path, uploads: Path) -> None:
        self._folder = folder
        descriptor, name = tempfile.mkstemp(dir=uploads)
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._size = 0

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """Append ``content``, all of it."""
        written = self._file.write(content)
        while written < len(content):
            written += self._file.write(content[written:])
        self._size += len(content)

    def publish(self, digest: str) -> None:
        """Put the blob under ``digest``, which the writer vouches for, in place of one that is there already."""
        self.publish_as(_hex(digest))

    def publish_as(self, name: str) -> None:
        """Put the file in its folder under ``name``, whole and on the disk, in place of one that is there already."""
        os.fsync(self._file.fileno())
        self._path.rename(self._folder / name)
        _sync_folder(self._folder)


class Layout:
    """The layout in ``root``, which is made where it is missing: an :class:`torpor_hub.oci.store.ImageStore`.

    Its blobs belong to all of its repositories.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._uploads = root / "uploads"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(exist_ok=True)
        if not (root / "oci-layout").exists():
            self._create()

    def blob_writer(self, repository: str) -> BlobWriter:
        """Return a writer of a new blob, to be used as a context."""
        del repository
        return BlobWriter(self._blobs, self._uploads)

    def put_blob(self, repository: str, content: bytes) -> str:
        """Return the digest of ``content``, which is now a blob."""
        digest = images.digest_of(content)
        with self.blob_writer(repository) as blob:
            blob.write(content)
            blob.publish(digest)
        return digest

    def borrow_blob(self, repository: str, source: str, blob: Descriptor) -> None:
        """Return when a blob of the repository ``source`` is there.

        Raises:
            ImageMissing: it is not.
        """
        if not self.has_blob(source, blob.digest, blob.size_bytes):
            raise ImageMissing(f"the blob {blob.digest}, which {repository} needs, is not in {self._root}")

    def open_blob(self, repository: str, digest: str) -> BinaryIO:
        """Return the bytes of a blob as an open file.

        Raises:
            ImageMissing: there is no such blob.
        """
        del repository
        try:
            return (self._blobs / _hex(digest)).open("rb")
        except FileNotFoundError as error:
            raise ImageMissing(f"the blob {digest} is not in {self._root}") from error

    def has_blob(self, repository: str, digest: str, size_bytes: int) -> bool:
        """Return whether a blob of this digest and size is there; its content is not read."""
        del repository
        try:
            return (self._blobs / _hex(digest)).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def put_manifest(self, repository: str, tag: str, manifest: bytes) -> str:
        """Return the digest of ``manifest``, now known as ``repository:tag``; repeating it changes nothing.

        Raises:
            ImageMissing: a blob that it names is not there.
        """
        digest = images.digest_of(manifest)
        named = images.read_descriptors(manifest)
        entry = Descriptor(images.MANIFEST, digest, len(manifest)).document({images.REF_NAME: f"{repository}:{tag}"})
        with self._locked():
            for blob in named:
                if not self.has_blob(repository, blob.digest, blob.size_bytes):
                    raise ImageMissing(
                        f"the blob {blob.digest}, which the manifest {digest} names, is not in {self._root}"
                    )
            self.put_blob(repository, manifest)
            others = [known for known in self._index() if _ref(known) != _ref(entry)]
            self._write_index([*others, entry])
        return digest

    def read_manifest(self, repository: str, digest: str) -> bytes:
        """Return the bytes of the manifest ``digest`` of ``repository``.

        Raises:
            ImageMissing: the repository has no such manifest.
            CorruptImage: the bytes do not have that digest.
        """
        if not any(entry["digest"] == digest and _repository(entry) == repository for entry in self._index()):
            raise ImageMissing(f"the repository {repository} has no manifest {digest} in {self._root}")
        with self.open_blob(repository, digest) as file:
            manifest = file.read()
        if images.digest_of(manifest) != digest:
            raise CorruptImage(f"the manifest {digest} of {repository} reads back with another digest")
        return manifest

    def read_config(self, repository: str, digest: str) -> bytes:
        """Return the bytes of the configuration of the image ``digest``; raises as :meth:`read_image` does."""
        manifest = self.read_manifest(repository, digest)
        with self.open_blob(repository, images.read_descriptors(manifest)[0].digest) as file:
            return file.read()

    def read_image(self, repository: str, digest: str) -> Image:
        """Return what the manifest ``digest`` and its configuration say.

        Raises:
            ImageMissing: the repository has no such manifest, or the configuration is not there.
            CorruptImage: one of them does not read back as it was written.
        """
        return images.read_image(self.read_manifest(repository, digest), self.read_config(repository, digest))

    def verify(self, repository: str, digest: str, progress: Callable[[int], None] | None = None) -> Image:
        """Return the image after every blob that it names was read back from the disk and has its digest and size.

        ``progress`` is called with the bytes read so far and may raise to stop.

        Raises:
            ImageMissing: the manifest or a blob is not there.
            CorruptImage: a blob does not read back as it was written; the text names it.
        """
        read = 0
        for blob in images.read_descriptors(self.read_manifest(repository, digest)):
            self._verify_blob(repository, digest, blob, shifted(progress, read))
            read += blob.size_bytes
        return self.read_image(repository, digest)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Forget the manifest ``digest`` of ``repository`` under all its tags; its blobs go with :meth:`collect`."""
        with self._locked():
            self._write_index(
                [entry for entry in self._index() if entry["digest"] != digest or _repository(entry) != repository]
            )

    def collect(self, grace_s: float = GRACE_S) -> tuple[str, ...]:
        """Remove the blobs that no manifest needs and that are older than ``grace_s`` seconds, and return their digests.

        Half-written blobs of that age go too. The grace is for writers that have put a blob and not yet its manifest.

        Raises:
            CorruptImage: a manifest cannot be read, so that what it needs is unknown; nothing is removed.
        """
        with self._locked():
            needed = self._needed()
            before = time.time() - grace_s
            old = [blob for blob in self._blobs.iterdir() if blob.name not in needed and blob.stat().st_mtime < before]
            for blob in old:
                blob.unlink()
            for upload in self._uploads.iterdir():
                _remove_older(upload, before)
        return tuple(sorted("sha256:" + blob.name for blob in old))

    def _create(self) -> None:
        """Make an empty index, and then the file that marks a layout, so that a later loss of the index is noticed."""
        with self._locked():
            if not (self._root / "index.json").exists():
                self._write_index([])
            self._replace("oci-layout", VERSION)

    def _verify_blob(
        self, repository: str, image: str, blob: Descriptor, progress: Callable[[int], None] | None
    ) -> None:
        digest, size = hashlib.sha256(), 0
        with self.open_blob(repository, blob.digest) as file:
            # Drops the cached pages, so that the disk answers and not the memory that was written from.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if progress:
                    progress(size)
        found = "sha256:" + digest.hexdigest()
        if (found, size) != (blob.digest, blob.size_bytes):
            raise CorruptImage(
                f"the blob {blob.digest} of {repository}@{image} reads back with the digest {found} and {size} of {blob.size_bytes} bytes"
            )

    def _needed(self) -> set[str]:
        needed = set()
        for entry in self._index():
            manifest = self.read_manifest(_repository(entry), entry["digest"])
            needed |= {_hex(entry["digest"]), *(_hex(blob.digest) for blob in images.read_descriptors(manifest))}
        return needed

    def _index(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads((self._root / "index.json").read_bytes())["manifests"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptImage(f"the index of {self._root} cannot be read: {error}") from error

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        document = {"schemaVersion": 2, "mediaType": images.INDEX, "manifests": sorted(entries, key=_ref)}
        self._replace("index.json", images.canonical(document))

    def _replace(self, name: str, content: bytes) -> None:
        with BlobWriter(self._root, self._uploads) as file:
            file.write(content)
            file.publish_as(name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._root / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _hex(digest: str) -> str:
    if not images.is_digest(digest):
        raise ImageMissing(f"{digest!r} is not a sha256 digest")
    return digest.removeprefix("sha256:")


def _ref(entry: dict[str, Any]) -> str:
    return str(entry.get("annotations", {}).get(images.REF_NAME, ""))


def _repository(entry: dict[str, Any]) -> str:
    return _ref(entry).rpartition(":")[0]


def _remove_older(file: Path, before: float) -> None:
    try:
        if file.stat().st_mtime < before:
            file.unlink()
    except FileNotFoundError:  # its writer has just published it
        return


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
