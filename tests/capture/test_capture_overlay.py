"""The capture of a container on a real overlay mount into a registry, restored and compared with what the container saw."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.oci.trees import listing
from tests.support import overlay
from tests.support import registry as registries
from tests.support.overlay import Overlay
from tests.support.registry import FakeRegistry
from torpor_hub.capture import overlay as overlays
from torpor_hub.capture.base import Capture, CaptureResult, CaptureTask
from torpor_hub.capture.overlay import OverlayCapture
from torpor_hub.errors import CaptureFailed, ImageMissing, RegistryFull, Unsettled
from torpor_hub.oci import images
from torpor_hub.oci.layers import restore, write_layer
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address

pytestmark = pytest.mark.skipif(not overlay.can_mount(), reason="no overlay file system can be mounted here")

PROFILE, REPOSITORY = "torpor/profiles/default", "torpor/workspaces/team/ws-1"
CREATED = "2026-11-21T00:00:00Z"


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with registries.fake() as registry:
        yield registry


@pytest.fixture
def registry(fake: FakeRegistry) -> Iterator[Registry]:
    client = Registry(Address(fake.host, insecure=True))
    yield client
    client.close()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Overlay]:
    base = tmp_path / "base"
    for folder in ("etc", "run", "tmp", "opt/env/lib"):
        (base / folder).mkdir(parents=True)
    for name in ("etc/conf", "opt/env/lib/a.py", "opt/env/lib/b.py"):
        (base / name).write_text(name)
    with overlay.mounted(tmp_path, base) as mounted:
        yield mounted


@pytest.fixture
def image(registry: Registry, mount: Overlay) -> str:
    """The profile's image, which the container runs, as a builder makes it: with settings of its own."""
    with registry.blob_writer(PROFILE) as blob:
        layer = write_layer(mount.base, blob.write).record
        blob.publish(layer.digest)
    plain = json.loads(images.image_config([layer], created=CREATED, architecture="amd64"))
    config = images.canonical({**plain, "config": {"Entrypoint": ["/lab"], "User": "1000:1000"}})
    registry.put_blob(PROFILE, config)
    theirs = replace(layer, uncompressed_bytes=0)
    return f"{PROFILE}@{registry.put_manifest(PROFILE, 'v1', images.image_manifest(config, [theirs], {}))}"


@pytest.fixture
def task(mount: Overlay, image: str) -> CaptureTask:
    annotations = {images.WORKSPACE: "ws-1", images.CREATED: CREATED}
    return CaptureTask("op-1", mount.upper, REPOSITORY, "op-1", annotations=annotations, image=image)


def sleep(
    registry: Registry, mount: Overlay, task: CaptureTask, frozen: Callable[[], Any] = lambda: None
) -> CaptureResult:
    """Save as an agent does; ``frozen`` is what happens just before the freeze."""
    capture: Capture = OverlayCapture(registry, mount.change)

    async def save() -> CaptureResult:
        prepared = await capture.prepare(task)
        frozen()
        result = await capture.capture(task, prepared=prepared)
        await capture.verify(task.repository, result.digest)
        return result

    return asyncio.run(save())


def checkpoint(registry: Registry, mount: Overlay, task: CaptureTask) -> CaptureResult:
    """Save as an agent does for a job: without a freeze."""
    capture = OverlayCapture(registry, mount.change)

    async def save() -> CaptureResult:
        return await capture.capture_live(task, prepared=await capture.prepare(task))

    return asyncio.run(save())


def restored(registry: Registry, digest: str, folder: Path) -> dict[bytes, Any]:
    """What a container of the image would see, but for its top folder."""
    image = registry.read_image(REPOSITORY, digest)
    base, *ours = image.layers
    shutil.rmtree(folder, ignore_errors=True)
    full = replace(base, uncompressed_bytes=registry_size(registry, base.digest))
    restore([full, *ours], partial(registry.open_blob, REPOSITORY), folder)
    return {path: seen for path, seen in listing(folder).items() if path != b"."}


def registry_size(registry: Registry, digest: str) -> int:
    with registry.open_blob(REPOSITORY, digest) as body:
        return len(zstandard.ZstdDecompressor().decompressobj().decompress(body.read()))


def seen(mount: Overlay) -> dict[bytes, Any]:
    return {path: found for path, found in listing(mount.merged).items() if path != b"."}


def test_a_change_is_a_layer_over_the_image_that_the_container_runs(
    registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask, tmp_path: Path
) -> None:
    (mount.merged / "opt/env/lib/a.py").unlink()
    (mount.merged / "opt/env/lib/new.py").write_text("new")
    result = sleep(registry, mount, task)
    assert restored(registry, result.digest, tmp_path / "awake") == seen(mount)
    assert (result.changed, len(result.layers), result.bytes_read) == (True, 1, 3)
    config = json.loads(registry.read_config(REPOSITORY, result.digest))
    assert (config["config"], config["created"]) == ({"Entrypoint": ["/lab"], "User": "1000:1000"}, CREATED)
    assert registry.read_image(REPOSITORY, result.digest).annotations[images.WORKSPACE] == "ws-1"
    base = registry.read_image(PROFILE, (task.image or "").partition("@")[2])
    sent = [line for line in fake.asked if line.startswith("PUT /v2/" + REPOSITORY + "/blobs")]
    assert len(sent) == 2, "the layer and the configuration; the base's blob is mounted"
    assert fake.blobs[REPOSITORY, base.layers[0].digest]


def test_a_container_that_changed_nothing_is_the_image_that_it_runs(
    registry: Registry, mount: Overlay, task: CaptureTask, tmp_path: Path
) -> None:
    first = sleep(registry, mount, task)
    assert (first.changed, first.layers, first.entries) == (True, (), 0)
    assert restored(registry, first.digest, tmp_path / "awake") == seen(mount)
    again = replace(task, parent_digest=first.digest, image=f"{REPOSITORY}@{first.digest}", tag="op-2")
    (mount.merged / "etc/hosts").write_text("by the runtime")
    (mount.merged / "run/file").write_text("scratch")
    (mount.merged / "tmp/file").write_text("scratch")
    second = sleep(registry, mount, again)
    assert (second.changed, second.digest) == (False, first.digest)


def test_the_same_change_saved_twice_is_one_image(registry: Registry, mount: Overlay, task: CaptureTask) -> None:
    (mount.merged / "opt/env/new").write_text("x")
    first = checkpoint(registry, mount, task)
    second = sleep(registry, mount, replace(task, parent_digest=first.digest, tag="op-2"))
    assert (second.changed, second.digest, second.layers) == (False, first.digest, first.layers)


class Remembered:
    """A container whose captures remember the ones before, as its node's agent does; ``writes`` counts what they sent."""

    def __init__(self, registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask) -> None:
        self._fake, self._task, self.source = fake, task, mount
        self._capture = OverlayCapture(registry, mount.change, overlays.Memory())
        self._parent: str | None = None
        self._number = 0

    def checkpoint(self) -> CaptureResult:
        return self._saved(frozen=False)

    def sleep(self) -> CaptureResult:
        return self._saved(frozen=True)

    def _saved(self, *, frozen: bool) -> CaptureResult:
        self._number += 1
        task = replace(self._task, parent_digest=self._parent, tag=f"op-{self._number}")

        async def save() -> CaptureResult:
            prepared = await self._capture.prepare(task)
            work = self._capture.capture if frozen else self._capture.capture_live
            result = await work(task, prepared=prepared)
            await self._capture.verify(task.repository, result.digest)
            return result

        asked = len(self._fake.asked)
        result = asyncio.run(save())
        self.writes = sum(not line.startswith(("GET", "HEAD")) for line in self._fake.asked[asked:])
        self._parent = result.digest
        return result


@pytest.fixture
def remembered(
    registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask, monkeypatch: pytest.MonkeyPatch
) -> Remembered:
    monkeypatch.setattr(overlays, "COPY_FIRST_BYTES", 500)
    (mount.merged / "opt/env/one").write_bytes(b"1" * 1000)
    (mount.merged / "opt/env/lib/b.py").unlink()
    while not overlays.scan(mount.change).settled:
        continue
    return Remembered(registry, fake, mount, task)


def test_a_checkpoint_of_what_did_not_change_since_the_last_one_is_that_one_and_sends_nothing(
    registry: Registry, remembered: Remembered, tmp_path: Path
) -> None:
    first = remembered.checkpoint()
    assert remembered.writes > 0
    second, third = remembered.checkpoint(), remembered.sleep()
    assert remembered.writes == 0
    for again in (second, third):
        assert (again.digest, again.layers, again.bytes_read) == (first.digest, first.layers, 0)
        assert not again.changed
    assert restored(registry, third.digest, tmp_path / "awake") == seen(remembered.source)


def same_size_and_time(env: Path) -> None:
    status = (env / "one").stat()
    (env / "one").write_bytes(b"2" * 1000)
    os.utime(env / "one", ns=(status.st_atime_ns, status.st_mtime_ns))


def swapped(env: Path) -> None:
    status = (env / "one").stat()
    (env / "two").write_bytes(b"2" * 1000)
    os.utime(env / "two", ns=(status.st_atime_ns, status.st_mtime_ns))
    (env / "two").rename(env / "one")


CHANGES: dict[str, Callable[[Path], Any]] = {
    "content of the same size and time": same_size_and_time,
    "another file of the same size and time": swapped,
    "mode": lambda env: (env / "one").chmod(0o600),
    "attribute": lambda env: os.setxattr(env / "one", "user.mark", b"x"),
    "new": lambda env: (env / "new").write_text(""),
    "gone": lambda env: (env / "one").unlink(),
    "renamed": lambda env: (env / "one").rename(env / "other"),
    "of the image": lambda env: (env / "lib/a.py").unlink(),
    "empty folder": lambda env: (env / "folder").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("frozen", [False, True], ids=["live", "frozen"])
def test_whatever_changed_since_is_saved(
    registry: Registry, remembered: Remembered, tmp_path: Path, change: Callable[[Path], Any], frozen: bool
) -> None:
    first = remembered.checkpoint()
    change(remembered.source.merged / "opt/env")
    second = remembered.sleep() if frozen else remembered.checkpoint()
    assert (second.changed, second.digest != first.digest) == (True, True)
    assert restored(registry, second.digest, tmp_path / "awake") == seen(remembered.source)


def test_a_store_through_a_memory_map_after_a_checkpoint_is_saved_by_the_next(
    registry: Registry, remembered: Remembered, tmp_path: Path
) -> None:
    with (remembered.source.merged / "opt/env/one").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:1] = b"a"
        while not overlays.scan(remembered.source.change).settled:
            continue
        first = remembered.checkpoint()
        memory[0:1] = b"b"
        second = remembered.checkpoint()
    assert second.digest != first.digest
    assert (restored_file(registry, second.digest, tmp_path / "awake") / "opt/env/one").read_bytes()[:1] == b"b"


def restored_file(registry: Registry, digest: str, folder: Path) -> Path:
    restored(registry, digest, folder)
    return folder


def test_an_image_that_is_not_whole_any_more_is_written_again_though_nothing_changed(
    registry: Registry, fake: FakeRegistry, remembered: Remembered, tmp_path: Path
) -> None:
    first = remembered.checkpoint()
    del fake.manifests[REPOSITORY, first.digest]
    second = remembered.checkpoint()
    assert (second.changed, remembered.writes > 0) == (True, True)
    assert restored(registry, second.digest, tmp_path / "awake") == seen(remembered.source)
    third = remembered.checkpoint()
    assert (third.digest, remembered.writes) == (second.digest, 0)


def test_what_was_saved_while_frozen_is_not_compared_with(remembered: Remembered) -> None:
    remembered.sleep()
    remembered.checkpoint()
    assert remembered.writes > 0, "what stood in memory maps had not gone to the disk before that look"


def test_what_was_deleted_since_a_checkpoint_for_a_job_does_not_come_back(
    registry: Registry, mount: Overlay, task: CaptureTask, tmp_path: Path
) -> None:
    (mount.merged / "opt/env/gone").write_text("in the job's image alone")
    (mount.merged / "opt/env/kept").write_text("kept")
    first = checkpoint(registry, mount, task)
    (mount.merged / "opt/env/gone").unlink()
    second = sleep(registry, mount, replace(task, parent_digest=first.digest, tag="op-2"))
    assert restored(registry, second.digest, tmp_path / "awake") == seen(mount)
    assert registry.read_image(REPOSITORY, second.digest).annotations[images.PARENT] == first.digest


def test_an_image_that_lost_its_layer_is_made_whole_by_the_next_capture(
    registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask
) -> None:
    (mount.merged / "opt/env/new").write_text("x")
    first = sleep(registry, mount, task)
    del fake.blobs[REPOSITORY, first.layers[0].digest]
    second = sleep(registry, mount, replace(task, parent_digest=first.digest, tag="op-2"))
    assert registry.verify(REPOSITORY, second.digest).layers[-1] == first.layers[-1]


def test_an_image_that_lost_its_configuration_is_written_again(
    registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask
) -> None:
    first = sleep(registry, mount, task)
    del fake.manifests[REPOSITORY, first.digest]
    second = sleep(registry, mount, replace(task, parent_digest=first.digest, tag="op-2"))
    assert (second.changed, second.layers) == (True, ())


def test_a_large_change_is_copied_before_the_freeze_and_only_the_rest_after(
    registry: Registry, mount: Overlay, task: CaptureTask, tmp_path: Path
) -> None:
    env = mount.merged / "opt/env"
    (env / "large").write_bytes(os.urandom(overlays.COPY_FIRST_BYTES + 1))
    (env / "gone").write_bytes(os.urandom(1000))
    while not overlays.scan(mount.change).settled:
        continue

    def work() -> None:
        (env / "gone").unlink()
        (env / "late").write_bytes(os.urandom(1000))
        (env / "lib/a.py").unlink()

    result = sleep(registry, mount, task, frozen=work)
    assert restored(registry, result.digest, tmp_path / "awake") == seen(mount)
    copied, rest = result.layers
    assert copied.uncompressed_bytes > overlays.COPY_FIRST_BYTES > 1000 * rest.size_bytes / 100


def test_a_live_copy_that_nothing_changed_after_is_all_there_is(
    registry: Registry, mount: Overlay, task: CaptureTask, tmp_path: Path
) -> None:
    (mount.merged / "opt/env/large").write_bytes(os.urandom(overlays.COPY_FIRST_BYTES + 1))
    while not overlays.scan(mount.change).settled:
        continue
    result = checkpoint(registry, mount, task)
    assert len(result.layers) == 1
    assert restored(registry, result.digest, tmp_path / "awake") == seen(mount)


def test_a_container_that_never_holds_still_has_to_be_frozen(
    registry: Registry, mount: Overlay, task: CaptureTask
) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            (mount.merged / "opt/env/busy").write_bytes(os.urandom(100))

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        with pytest.raises(Unsettled):
            checkpoint(registry, mount, task)
    finally:
        stop.set()
        thread.join()
    assert checkpoint(registry, mount, task).changed


def test_another_image_than_the_container_runs_is_not_taken_for_it(
    registry: Registry, mount: Overlay, task: CaptureTask
) -> None:
    wrong = OverlayCapture(registry, replace(mount.change, lowers=(mount.base, mount.base)))
    with pytest.raises(CaptureFailed, match=r"runs an image of 2 layers.*has 1"):
        asyncio.run(wrong.prepare(task))
    with pytest.raises(CaptureFailed, match=r"not in the registry any more.*apply its profile again"):
        sleep(registry, mount, replace(task, image=f"{PROFILE}@sha256:{'0' * 64}"))


def test_an_environment_of_forty_layers_is_the_last_that_is_saved(
    registry: Registry, mount: Overlay, task: CaptureTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = mount.merged / "opt/env/new"
    new.write_text("first")
    base, layer = registry.read_image(REPOSITORY, sleep(registry, mount, task).digest).layers
    before = [base, *[layer] * 39]
    config = images.image_config(before, created=CREATED, architecture="amd64")
    registry.put_blob(REPOSITORY, config)
    woken = registry.put_manifest(REPOSITORY, "before", images.image_manifest(config, before, {}))
    monkeypatch.setattr(overlays, "COPY_FIRST_BYTES", 0)
    capture = OverlayCapture(registry, replace(mount.change, lowers=()))
    task = replace(task, image=f"{REPOSITORY}@{woken}")
    prepared = asyncio.run(capture.prepare(task))
    new.write_text("changed before the freeze")
    saved = asyncio.run(capture.capture(task, prepared=prepared))
    assert len(saved.layers) == 40, "where one is left, it is not spent on a copy before the freeze"
    with pytest.raises(CaptureFailed, match="saved in 40 layers, and 40 is the limit; start the workspace from its"):
        asyncio.run(capture.prepare(replace(task, image=f"{REPOSITORY}@{saved.digest}")))


def test_a_full_registry_fails_the_capture_and_keeps_nothing_of_it(
    registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask
) -> None:
    (mount.merged / "opt/env/new").write_text("x")

    def fill() -> None:
        fake.faults.full = True

    with pytest.raises(RegistryFull):
        sleep(registry, mount, task, frozen=fill)
    assert (fake.uploads, fake.tags) == ({}, {(PROFILE, "v1"): (task.image or "").partition("@")[2]})


def test_a_registry_that_lost_the_layer_is_found_out(
    registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask
) -> None:
    (mount.merged / "opt/env/new").write_text("x")
    first = checkpoint(registry, mount, task)
    fake.faults.lies_about = {first.layers[0].digest}
    with pytest.raises(ImageMissing):
        asyncio.run(OverlayCapture(registry, mount.change).verify(REPOSITORY, first.digest))


def test_a_capture_that_is_cancelled_leaves_no_upload(
    registry: Registry, fake: FakeRegistry, mount: Overlay, task: CaptureTask
) -> None:
    (mount.merged / "opt/env/large").write_bytes(os.urandom(overlays.COPY_FIRST_BYTES + 1))

    async def cancelled() -> None:
        begun = asyncio.Event()
        work = asyncio.create_task(
            OverlayCapture(registry, mount.change).capture(task, lambda _done, _total: begun.set())
        )
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancelled())
    assert fake.uploads == {}


def test_progress_is_of_the_bytes_that_are_left(registry: Registry, mount: Overlay, task: CaptureTask) -> None:
    (mount.merged / "opt/env/large").write_bytes(os.urandom(overlays.COPY_FIRST_BYTES + 1))
    told: list[tuple[int, int]] = []

    async def save() -> None:
        capture = OverlayCapture(registry, mount.change)
        estimate = await capture.estimate(mount.upper)
        await capture.capture_live(task, prepared=await capture.prepare(task, lambda *both: told.append(both)))
        assert estimate.content_bytes == overlays.COPY_FIRST_BYTES + 1

    asyncio.run(save())
    assert told[-1] == (overlays.COPY_FIRST_BYTES + 1, overlays.COPY_FIRST_BYTES + 1)
    assert all(done <= total for done, total in told)
