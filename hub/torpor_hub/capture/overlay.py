"""The capture of a container's changes, from the upper directory of its overlay mount, as a layer over the image that it runs.

What is large is copied while the container runs; after the freeze, only what changed since is written, as a second layer. Where
nothing changed since the container was last saved while it ran, nothing is copied at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torpor_hub import failpoints
from torpor_hub.capture.base import CaptureResult, CaptureTask, Estimate, Prepared, Progress
from torpor_hub.capture.threads import Stop, Watch, in_loop, in_thread, saving, write_back
from torpor_hub.errors import CaptureFailed, CorruptImage, FileChanged, ImageMissing, Unsettled
from torpor_hub.oci import images
from torpor_hub.oci.images import Image
from torpor_hub.oci.layers import Layer
from torpor_hub.oci.overlay_marks import Upper
from torpor_hub.oci.scans import Change, Scan, compare, is_untouched, scan
from torpor_hub.oci.store import ImageStore
from torpor_hub.oci.upper import write_live, write_upper

EXCLUDES = (
    "proc/*",
    "sys/*",
    "dev/*",
    "run/*",
    "tmp/*",
    "var/tmp/*",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
)
"""What the kernel and the runtime put into every container, and what is scratch by its name."""

COPY_FIRST_BYTES = 20_000_000
"""Changes above this are copied before the freeze: below, the freeze for all of it is as short as two looks."""

MAX_LAYERS = 40
"""Layers over the base, where a sleep is refused; runtimes end at about 120 in all."""

PAUSES_S = (0.0, 0.02, 0.04)
UNDATED = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class _Copied(Prepared):
    """The image that the container runs, and, where it was worth it, a layer of what it had changed while it ran."""

    base: Image
    config: bytes
    layers: tuple[Layer, ...] = ()
    held: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Memory:
    """What one container held when it was last saved while it ran, as :attr:`Scan.digest` says it, and what was answered then.

    Only such a look can be compared with a later one: it had settled, and what was written through memory maps until then had
    gone to the disk, so that any later change moves a time.
    """

    content: bytes = b""
    result: CaptureResult | None = None


class OverlayCapture:
    """Captures of the container whose changes are in ``upper``, into ``store``; ``memory`` is this container's alone."""

    def __init__(self, store: ImageStore, upper: Upper, memory: Memory | None = None) -> None:
        self._store = store
        self._upper = upper
        self._memory = memory or Memory()

    async def estimate(self, source: Path, excludes: Sequence[str] = ()) -> Estimate:
        """Return what a capture would read."""
        upper = replace(self._upper, path=source)
        seen = await in_thread(lambda stop: scan(upper, (*EXCLUDES, *excludes), stop.check, live=True))
        return Estimate(len(seen.entries), seen.content_bytes)

    async def prepare(self, task: CaptureTask, progress: Progress | None = None) -> Prepared:
        """Look at the image that the container runs, and copy what is large; see :class:`torpor_hub.capture.base.Capture`."""
        report = in_loop(progress)
        return await in_thread(lambda stop: self._work(task, stop, report).prepare())

    async def capture(
        self, task: CaptureTask, progress: Progress | None = None, *, prepared: Prepared | None = None
    ) -> CaptureResult:
        """Return the saved environment; see :class:`torpor_hub.capture.base.Capture`."""
        report = in_loop(progress)
        return await in_thread(lambda stop: self._work(task, stop, report).capture(prepared))

    async def capture_live(
        self,
        task: CaptureTask,
        progress: Progress | None = None,
        *,
        prepared: Prepared | None = None,
        attempts: int = 3,
    ) -> CaptureResult:
        """Return the saved environment of running processes; see :class:`torpor_hub.capture.base.Capture`."""
        report = in_loop(progress)
        return await in_thread(lambda stop: self._work(task, stop, report).capture_live(prepared, attempts))

    async def verify(self, repository: str, digest: str) -> None:
        """Return after the image was read back from the registry."""
        await in_thread(lambda stop: self._store.verify(repository, digest, lambda _size: stop.check()))
        failpoints.hit("capture.verified")

    def _work(self, task: CaptureTask, stop: Stop, report: Progress) -> _Work:
        return _Work(self._store, self._upper, self._memory, task, stop, report)


class _Work:
    """One task, in a thread."""

    def __init__(
        self, store: ImageStore, upper: Upper, memory: Memory, task: CaptureTask, stop: Stop, report: Progress
    ) -> None:
        self._store = store
        self._upper = upper
        self._memory = memory
        self._task = task
        self._stop = stop
        self._report = report
        self._excludes = (*EXCLUDES, *task.excludes)

    def prepare(self) -> Prepared:
        with saving(self._task):
            before = self._scan(live=True)
            if self._is_known(before):
                return Prepared()
            copied = self._base()
            if before.content_bytes <= COPY_FIRST_BYTES or len(_ours(copied.base)) + 2 > MAX_LAYERS:
                return copied
            write_back(self._upper.path)
            held: dict[bytes, bytes] = {}
            watch = Watch(self._stop, self._report, before.content_bytes)

            def write(sink: Callable[[bytes], object]) -> Layer:
                layer, found = write_live(self._upper, sink, before, excludes=self._excludes, progress=watch)
                held.update(found)
                return layer

            layer = self._put_layer(write)
            watch.report(layer.bytes_read)
            failpoints.hit("capture.copied_live")
            return replace(copied, layers=(layer,), held=held)

    def capture(self, prepared: Prepared | None) -> CaptureResult:
        with saving(self._task):
            now = self._scan()
            known = self._known(now)
            if known is not None:
                return known
            copied = prepared if isinstance(prepared, _Copied) else self._base()
            return self._publish(copied, self._layers(copied, now))

    def capture_live(self, prepared: Prepared | None, attempts: int) -> CaptureResult:
        with saving(self._task):
            known = self._known(self._scan(live=True)) if self._memory.result else None
            if known is not None:
                return known
            copied = prepared if isinstance(prepared, _Copied) else self._base()
            for _ in range(attempts):
                try:
                    before = self._settled_scan()
                    write_back(self._upper.path)
                    layers = self._layers(copied, before)
                    if self._scan().entries == before.entries:
                        return self._remember(before, self._publish(copied, layers))
                except FileChanged:
                    continue
        raise Unsettled(f"{self._task.source} changed during each of {attempts} copies; freeze its processes first")

    def _is_known(self, now: Scan) -> bool:
        return self._memory.result is not None and self._memory.content == now.digest

    def _known(self, now: Scan) -> CaptureResult | None:
        """Return what was answered when the container held the same, where that image is whole; else its like is written again."""
        last = self._memory.result
        if last is None or not self._is_known(now):
            return None
        try:
            self._store.verify(self._task.repository, last.digest, lambda _size: self._stop.check())
        except CorruptImage:
            return None
        return replace(last, parent_digest=self._task.parent_digest, bytes_read=0, changed=False)

    def _remember(self, before: Scan, result: CaptureResult) -> CaptureResult:
        self._memory.content, self._memory.result = before.digest, result
        return result

    def _base(self) -> _Copied:
        """Return the image that the container runs, with its layers made the workspace's own."""
        repository, _, digest = (self._task.image or "").partition("@")
        try:
            config = self._store.read_config(repository, digest)
            base = images.read_image(self._store.read_manifest(repository, digest), config)
        except ImageMissing as error:
            raise CaptureFailed(
                f"The image that the workspace runs, {self._task.image}, is not in the registry any more ({error}); have an"
                " administrator apply its profile again, or save your work to your home and start anew."
            ) from error
        self._check(base)
        if repository != self._task.repository:
            for blob in base.blobs[1:]:
                self._store.borrow_blob(self._task.repository, repository, blob)
        return _Copied(base, config)

    def _check(self, base: Image) -> None:
        if self._upper.lowers and len(self._upper.lowers) != len(base.layers):
            raise CaptureFailed(
                f"The container runs an image of {len(self._upper.lowers)} layers, but {self._task.image} has"
                f" {len(base.layers)}: a change of the one cannot be saved as a change of the other."
            )
        if len(_ours(base)) >= MAX_LAYERS:
            raise CaptureFailed(
                f"The environment has been saved in {len(_ours(base))} layers, and {MAX_LAYERS} is the limit; start the"
                " workspace from its profile and install what is needed again."
            )

    def _scan(self, *, live: bool = False) -> Scan:
        return scan(self._upper, self._excludes, self._stop.check, live=live)

    def _settled_scan(self) -> Scan:
        """Return a look in which any later change shows, or raise :class:`FileChanged` when something is being written."""
        for pause_s in PAUSES_S:
            self._stop.sleep(pause_s)
            seen = self._scan()
            if seen.settled:
                return seen
        raise FileChanged(f"{self._task.source} is being written to")

    def _layers(self, copied: _Copied, now: Scan) -> tuple[Layer, ...]:
        """Return the layers over the base that make what there is now: the live copy, and what is to be written over it."""
        change = compare(copied.held, now)
        if change.is_empty or (not copied.layers and is_untouched(self._upper, now, self._excludes)):
            return copied.layers
        layer = self._put_layer(lambda sink: self._write(sink, change))
        failpoints.hit("capture.layer_written")
        return (*copied.layers, layer)

    def _write(self, sink: Callable[[bytes], object], change: Change) -> Layer:
        watch = Watch(self._stop, self._report, change.content_bytes)
        layer = write_upper(self._upper, sink, change, excludes=self._excludes, progress=watch)
        watch.report(layer.bytes_read)
        return layer

    def _put_layer(self, write: Callable[[Callable[[bytes], object]], Layer]) -> Layer:
        with self._store.blob_writer(self._task.repository) as blob:
            layer = write(blob.write)
            blob.publish(layer.record.digest)
            return layer

    def _publish(self, copied: _Copied, layers: tuple[Layer, ...]) -> CaptureResult:
        task, added = self._task, [layer.record for layer in layers]
        config = images.extended_config(copied.config, added, created=task.annotations.get(images.CREATED, UNDATED))
        whole = [*copied.base.layers, *added]
        parent = self._parent()
        if parent and [layer.diff_id for layer in parent.layers] == [layer.diff_id for layer in whole]:
            return self._result(task.parent_digest or "", parent, layers, changed=False)
        named = {images.PARENT: task.parent_digest} if task.parent_digest else {}
        manifest = images.image_manifest(config, whole, {**task.annotations, **named})
        self._stop.check()
        self._store.put_blob(task.repository, config)
        digest = self._store.put_manifest(task.repository, task.tag, manifest)
        failpoints.hit("capture.manifest_written")
        return self._result(digest, images.read_image(manifest, config), layers, changed=True)

    def _parent(self) -> Image | None:
        """Return what was last saved, or nothing where it does not read back: then its like is written again."""
        if self._task.parent_digest is None:
            return None
        try:
            return self._store.verify(self._task.repository, self._task.parent_digest)
        except CorruptImage:
            return None

    def _result(self, digest: str, image: Image, layers: tuple[Layer, ...], *, changed: bool) -> CaptureResult:
        return CaptureResult(
            digest=digest,
            parent_digest=self._task.parent_digest,
            layers=tuple(_ours(image)),
            config_digest=image.config.digest,
            entries=sum(layer.entries for layer in layers),
            bytes_read=sum(layer.bytes_read for layer in layers),
            changed=changed,
            skipped=tuple(dict.fromkeys(name for layer in layers for name in layer.skipped)),
        )


def _ours(image: Image) -> list[images.LayerRecord]:
    return [layer for layer in image.layers if layer.is_ours]
