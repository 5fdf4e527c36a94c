"""What a capture is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torpor_hub.oci.images import LayerRecord

Progress = Callable[[int, int], None]
"""Called in the event loop with the bytes done and the bytes in all; both are of the content that is read."""


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """An environment to be saved as ``repository:tag``.

    ``annotations`` go into the manifest; ``org.opencontainers.image.created`` among them is the time of the image, so that
    a repeat of the same task gives the same digest. ``excludes`` are shell patterns, as :func:`torpor_hub.oci.walk.walk`
    reads them. ``parent_digest`` is what was last saved in the repository, and ``image`` (``repository@digest``) what the
    environment began as, of which the source is a change; without one it began empty.
    """

    operation: str
    source: Path
    repository: str
    tag: str
    parent_digest: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    excludes: Sequence[str] = ()
    image: str | None = None


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """An environment saved. Where nothing ``changed`` since it was saved before, the digest is that image's and nothing was written.

    ``skipped`` names what an image cannot hold (sockets, devices, names that start with ``.wh.``), each with the reason.
    """

    digest: str
    parent_digest: str | None
    layers: tuple[LayerRecord, ...]
    config_digest: str
    entries: int
    bytes_read: int
    changed: bool
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a capture would read: the number of things, and the bytes of their content, holes counted as content."""

    entries: int
    content_bytes: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a capture has done while the environment's processes ran; only the capture that made it looks inside."""


class Capture(Protocol):
    """Saves environments. Cancelling the caller's task stops the work within a chunk, and nothing half-written stays."""

    async def estimate(self, source: Path, excludes: Sequence[str] = ()) -> Estimate:
        """Return what a capture would read, by a look at names and sizes alone."""

    async def prepare(self, task: CaptureTask, progress: Progress | None = None) -> Prepared:
        """Do, while the environment's processes run, what makes the rest short, for example copy what is large.

        Raises:
            CaptureFailed: the environment cannot be saved, frozen or not; the text says why.
        """
        ...

    async def capture(
        self, task: CaptureTask, progress: Progress | None = None, *, prepared: Prepared | None = None
    ) -> CaptureResult:
        """Return the saved environment, whose processes are frozen or gone.

        Raises:
            FileChanged: something changed while it was read: a process still runs.
            CaptureFailed: something cannot be read or written.
        """

    async def capture_live(
        self,
        task: CaptureTask,
        progress: Progress | None = None,
        *,
        prepared: Prepared | None = None,
        attempts: int = 3,
    ) -> CaptureResult:
        """Return the saved environment while its processes run, if it holds still for as long as that takes.

        Raises:
            Unsettled: it kept changing in all of the ``attempts``; it must be frozen first.
            CaptureFailed: something cannot be read or written.
        """

    async def verify(self, repository: str, digest: str) -> None:
        """Return after the whole image was read back from where it is stored.

        Raises:
            ImageMissing: the manifest, or a blob that it names, is not there.
            CorruptImage: something does not read back as it was written; the text names it.
        """
