"""The capture of a folder into an image layout on disk, in one layer."""

from __future__ import annotations

import hashlib
import platform
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torpor_hub import failpoints
from torpor_hub.capture.base import CaptureResult, CaptureTask, Estimate, Prepared, Progress
from torpor_hub.capture.threads import Stop, Watch, in_loop, in_thread, saving, write_back
from torpor_hub.errors import FileChanged, ImageMissing, Unsettled
from torpor_hub.oci import images
from torpor_hub.oci.images import Image, LayerRecord
from torpor_hub.oci.layers import Layer, write_layer
from torpor_hub.oci.layout import BlobWriter, Layout
from torpor_hub.oci.walk import walk

CLOCK_STEP_S = 0.02
"""Two writes within one tick of the kernel's clock (10 ms at most) may leave the same times; twice that is safe."""

UNDATED = "1970-01-01T00:00:00Z"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class DirectoryCapture:
    """Captures of folders of this machine into ``layout``."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def estimate(self, source: Path, excludes: Sequence[str] = ()) -> Estimate:
        """Return what a capture would read."""
        return await in_thread(lambda stop: _estimate(source, excludes, stop))

    async def prepare(self, task: CaptureTask, progress: Progress | None = None) -> Prepared:
        """Return at once: a folder on this disk is copied in one pass."""
        del task, progress
        return Prepared()

    async def capture(
        self, task: CaptureTask, progress: Progress | None = None, *, prepared: Prepared | None = None
    ) -> CaptureResult:
        """Return the saved environment; see :class:`torpor_hub.capture.base.Capture`."""
        del prepared
        report = in_loop(progress)
        return await in_thread(lambda stop: self._capture(task, stop, report))

    async def capture_live(
        self,
        task: CaptureTask,
        progress: Progress | None = None,
        *,
        prepared: Prepared | None = None,
        attempts: int = 3,
    ) -> CaptureResult:
        """Return the saved environment of running processes; see :class:`torpor_hub.capture.base.Capture`."""
        del prepared
        report = in_loop(progress)
        return await in_thread(lambda stop: self._capture_live(task, stop, report, attempts))

    async def verify(self, repository: str, digest: str) -> None:
        """Return after every blob of the image was read back from the disk."""
        await in_thread(lambda stop: self._verify(repository, digest, stop))

    def _capture(self, task: CaptureTask, stop: Stop, report: Progress) -> CaptureResult:
        with saving(task), self._layout.blob_writer(task.repository) as blob:
            return self._publish(task, blob, self._write(task, blob, stop, report))

    def _capture_live(self, task: CaptureTask, stop: Stop, report: Progress, attempts: int) -> CaptureResult:
        for _ in range(attempts):
            try:
                with saving(task), self._layout.blob_writer(task.repository) as blob:
                    before = _settled_signature(task, stop)
                    layer = self._write(task, blob, stop, report)
                    if _signature(task, stop).digest == before.digest:
                        return self._publish(task, blob, layer)
            except FileChanged:
                continue
        raise Unsettled(
            f"{task.source} changed during each of {attempts} copies; freeze its processes and capture again"
        )

    def _verify(self, repository: str, digest: str, stop: Stop) -> None:
        self._layout.verify(repository, digest, lambda _size: stop.check())
        failpoints.hit("capture.verified")

    def _write(self, task: CaptureTask, blob: BlobWriter, stop: Stop, report: Progress) -> Layer:
        watch = Watch(stop, report, _estimate(task.source, task.excludes, stop).content_bytes)
        layer = write_layer(task.source, blob.write, excludes=task.excludes, progress=watch)
        watch.report(layer.bytes_read)
        return layer

    def _publish(self, task: CaptureTask, blob: BlobWriter, layer: Layer) -> CaptureResult:
        parent = self._parent(task)
        if parent and [known.diff_id for known in parent.layers] == [layer.record.diff_id]:
            return _result(task, layer, task.parent_digest or "", parent, changed=False)
        blob.publish(layer.record.digest)
        failpoints.hit("capture.layer_written")
        config, manifest = _documents(task, layer.record)
        self._layout.put_blob(task.repository, config)
        digest = self._layout.put_manifest(task.repository, task.tag, manifest)
        failpoints.hit("capture.manifest_written")
        return _result(task, layer, digest, images.read_image(manifest, config), changed=True)

    def _parent(self, task: CaptureTask) -> Image | None:
        """Return the parent's image, or nothing where it is not whole: then its like is written again."""
        if task.parent_digest is None:
            return None
        try:
            image = self._layout.read_image(task.repository, task.parent_digest)
        except ImageMissing:
            return None
        return (
            image
            if all(self._layout.has_blob(task.repository, blob.digest, blob.size_bytes) for blob in image.blobs)
            else None
        )


class _Signature(NamedTuple):
    digest: bytes
    newest_ns: int


def _estimate(source: Path, excludes: Sequence[str], stop: Stop) -> Estimate:
    entries = content_bytes = 0
    linked: set[tuple[int, int]] = set()
    for _path, _name, status, _directory in walk(source, excludes):
        stop.check()
        entries += 1
        if not stat.S_ISREG(status.st_mode):
            continue
        if status.st_nlink > 1:
            identity = (status.st_dev, status.st_ino)
            if identity in linked:
                continue
            linked.add(identity)
        content_bytes += status.st_size
    return Estimate(entries, content_bytes)


def _signature(task: CaptureTask, stop: Stop) -> _Signature:
    """Return what stays the same exactly as long as nothing in the folder changes."""
    digest, newest = hashlib.blake2b(), 0
    for path, _name, status, _directory in walk(task.source, task.excludes):
        stop.check()
        identity = (path, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(repr(identity).encode())
        newest = max(newest, status.st_ctime_ns)
    return _Signature(digest.digest(), newest)


def _settled_signature(task: CaptureTask, stop: Stop) -> _Signature:
    """Return a signature in which any later change shows, or raise :class:`FileChanged` when something is being written.

    Written back after the look and before the copy: a store through a memory map to a page that is dirty already leaves no
    trace, so none may be dirty when the copy begins.
    """
    for pause_s in (0.0, CLOCK_STEP_S, 2 * CLOCK_STEP_S):
        stop.sleep(pause_s)
        started_ns = time.time_ns()
        signature = _signature(task, stop)
        if signature.newest_ns < started_ns - CLOCK_STEP_S * 1e9:
            write_back(task.source)
            return signature
    raise FileChanged(f"{task.source} is being written to")


def _documents(task: CaptureTask, layer: LayerRecord) -> tuple[bytes, bytes]:
    machine = platform.machine()
    config = images.image_config(
        [layer],
        created=task.annotations.get(images.CREATED, UNDATED),
        architecture=ARCHITECTURES.get(machine, machine),
    )
    parent = {images.PARENT: task.parent_digest} if task.parent_digest else {}
    return config, images.image_manifest(config, [layer], {**task.annotations, **parent})


def _result(task: CaptureTask, layer: Layer, digest: str, image: Image, *, changed: bool) -> CaptureResult:
    return CaptureResult(
        digest=digest,
        parent_digest=task.parent_digest,
        layers=image.layers,
        config_digest=image.config.digest,
        entries=layer.entries,
        bytes_read=layer.bytes_read,
        changed=changed,
        skipped=layer.skipped,
    )
