from __future__ import annotations

import asyncio
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.oci.trees import listing
from torpor_hub.capture import directory
from torpor_hub.capture.base import Capture, CaptureResult, CaptureTask
from torpor_hub.capture.directory import DirectoryCapture
from torpor_hub.errors import CaptureFailed, CorruptImage, FailpointError, FileChanged, Unsettled
from torpor_hub.oci import images
from torpor_hub.oci.layers import Layer, restore, write_layer
from torpor_hub.oci.layout import Layout

REPOSITORY = "torpor/workspaces/team/ws-1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "env"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "module.py").write_text("x = 1\n")
    (root / "lib" / "native.so").write_bytes(os.urandom(300_000))
    os.link(root / "lib" / "native.so", root / "lib" / "native.so.1")
    (root / "python").symlink_to("/usr/bin/python3")
    return root


@pytest.fixture
def task(source: Path) -> CaptureTask:
    return CaptureTask("op-1", source, REPOSITORY, "op-1", annotations={images.WORKSPACE: "ws-1"})


def capture(layout: Layout, task: CaptureTask) -> CaptureResult:
    return asyncio.run(DirectoryCapture(layout).capture(task))


def state(tmp_path: Path) -> dict[str, int]:
    """Every file of the layout but its lock, with its size."""
    files = (path for path in (tmp_path / "layout").rglob("*") if path.is_file() and path.name != "index.lock")
    return {str(path.relative_to(tmp_path)): path.stat().st_size for path in files}


def test_what_was_captured_is_restored_exactly(layout: Layout, task: CaptureTask, tmp_path: Path) -> None:
    service: Capture = DirectoryCapture(layout)
    before = listing(task.source)

    async def sleep() -> CaptureResult:
        result = await service.capture(task)
        await service.verify(task.repository, result.digest)
        return result

    result = asyncio.run(sleep())
    image = Layout(tmp_path / "layout").read_image(REPOSITORY, result.digest)
    restore(image.layers, partial(layout.open_blob, REPOSITORY), tmp_path / "awake")
    assert listing(tmp_path / "awake") == before
    assert (result.changed, result.skipped, result.entries, result.bytes_read) == (True, (), 6, 300_006)
    assert image.layers == result.layers
    assert image.config.digest == result.config_digest
    assert image.annotations == {images.WORKSPACE: "ws-1"}


def test_a_repeat_of_a_capture_gives_the_same_digest(layout: Layout, task: CaptureTask, tmp_path: Path) -> None:
    first = capture(layout, task)
    before = state(tmp_path)
    assert capture(layout, task) == first
    assert state(tmp_path) == before


def test_nothing_changed_is_an_answer_and_writes_nothing(layout: Layout, task: CaptureTask, tmp_path: Path) -> None:
    first = capture(layout, task)
    before = state(tmp_path)
    again = capture(layout, replace(task, operation="op-2", tag="op-2", parent_digest=first.digest))
    assert (again.changed, again.digest, again.layers) == (False, first.digest, first.layers)
    assert (again.parent_digest, again.config_digest) == (first.digest, first.config_digest)
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda env: (env / "new").touch(),
        lambda env: (env / "lib" / "module.py").write_text("x = 2\n"),
        lambda env: (env / "lib" / "module.py").chmod(0o600),
        lambda env: os.utime(env / "lib" / "module.py", ns=(0, 1)),
        lambda env: os.utime(env / "lib", ns=(0, 1)),
        lambda env: (env / "python").unlink(),
        lambda env: (env / "lib" / "native.so.1").rename(env / "lib" / "native.so.2"),
        lambda env: os.setxattr(env / "lib", "user.note", b"x"),
    ],
)
def test_any_change_makes_a_new_checkpoint_that_names_its_parent(
    layout: Layout, task: CaptureTask, change: Callable[[Path], Any]
) -> None:
    first = capture(layout, task)
    change(task.source)
    second = capture(layout, replace(task, tag="op-2", parent_digest=first.digest))
    assert second.changed
    assert second.digest != first.digest
    assert second.layers[0].diff_id != first.layers[0].diff_id
    assert layout.read_image(REPOSITORY, second.digest).annotations[images.PARENT] == first.digest


@pytest.mark.parametrize("loss", ["manifest", "blob"])
def test_a_parent_that_is_not_whole_is_written_anew(
    layout: Layout, task: CaptureTask, tmp_path: Path, loss: str
) -> None:
    first = capture(layout, task)
    if loss == "manifest":
        layout.delete_manifest(REPOSITORY, first.digest)
    else:
        os.truncate(tmp_path / "layout/blobs/sha256" / first.layers[0].digest.removeprefix("sha256:"), 7)
    second = capture(layout, replace(task, tag="op-2", parent_digest=first.digest))
    assert second.changed
    assert layout.verify(REPOSITORY, second.digest).layers == first.layers


def test_only_what_the_task_names_is_left_out(layout: Layout, task: CaptureTask, tmp_path: Path) -> None:
    (task.source / "__pycache__").mkdir()
    (task.source / "__pycache__" / "module.pyc").write_text("x")
    (task.source / "run.pid").write_text("1")
    result = capture(layout, replace(task, excludes=("*.pid",)))
    restore(result.layers, partial(layout.open_blob, REPOSITORY), tmp_path / "awake")
    assert (tmp_path / "awake" / "__pycache__" / "module.pyc").exists()
    assert not (tmp_path / "awake" / "run.pid").exists()


def test_the_estimate_is_what_the_capture_reads(layout: Layout, task: CaptureTask) -> None:
    estimate = asyncio.run(DirectoryCapture(layout).estimate(task.source, ["module.py"]))
    result = capture(layout, replace(task, excludes=["module.py"]))
    assert (estimate.entries, estimate.content_bytes) == (result.entries, result.bytes_read) == (5, 300_000)


def test_progress_ends_with_all_bytes_and_comes_in_the_event_loop(layout: Layout, task: CaptureTask) -> None:
    seen: list[tuple[int, int]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def note(done: int, total: int) -> None:
            assert asyncio.get_running_loop() is loop
            seen.append((done, total))

        await DirectoryCapture(layout).capture(task, note)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert seen[-1] == (300_006, 300_006)
    assert seen == sorted(seen)


@pytest.mark.parametrize("method", ["capture", "capture_live"])
def test_a_cancelled_capture_stops_at_once_and_leaves_nothing(
    layout: Layout, task: CaptureTask, tmp_path: Path, method: str
) -> None:
    with (task.source / "large").open("wb") as file:
        file.truncate(100 * 1024**3)
    before = state(tmp_path)

    async def run() -> float:
        started = asyncio.Event()
        work = getattr(DirectoryCapture(layout), method)(task, lambda done, _total: started.set() if done else None)
        running = asyncio.create_task(work)
        await asyncio.wait_for(started.wait(), 30)
        cancelled = time.monotonic()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert state(tmp_path) == before
        return time.monotonic() - cancelled

    assert asyncio.run(run()) < 1


def test_a_cancelled_verification_stops(layout: Layout, task: CaptureTask) -> None:
    result = capture(layout, task)

    async def run() -> None:
        running = asyncio.create_task(DirectoryCapture(layout).verify(REPOSITORY, result.digest))
        await asyncio.sleep(0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def test_a_damaged_checkpoint_is_refused_by_name(layout: Layout, task: CaptureTask, tmp_path: Path) -> None:
    result = capture(layout, task)
    blob = tmp_path / "layout/blobs/sha256" / result.layers[0].digest.removeprefix("sha256:")
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    with pytest.raises(CorruptImage, match=result.layers[0].digest):
        asyncio.run(DirectoryCapture(layout).verify(REPOSITORY, result.digest))


def test_a_folder_that_is_missing_is_an_error_that_names_it(layout: Layout, task: CaptureTask, tmp_path: Path) -> None:
    with pytest.raises(CaptureFailed, match="no-such-env"):
        capture(layout, replace(task, source=tmp_path / "no-such-env"))
    with pytest.raises(CaptureFailed, match="no-such-env"):
        asyncio.run(DirectoryCapture(layout).capture_live(replace(task, source=tmp_path / "no-such-env")))


def test_a_full_disk_fails_the_capture_and_leaves_nothing(
    layout: Layout, task: CaptureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CaptureFailed, match="No space left"):
        capture(layout, task)
    assert state(tmp_path) == before


def interfere(monkeypatch: pytest.MonkeyPatch, *actions: Callable[[], Any]) -> None:
    """Act after each copy in turn, before the folder is looked at again."""
    waiting = list(actions)

    def copy(*args: Any, **options: Any) -> Layer:
        layer = write_layer(*args, **options)
        if waiting:
            waiting.pop(0)()
        return layer

    monkeypatch.setattr(directory, "write_layer", copy)


def rewrite_secretly(file: Path) -> None:
    """Other content of the same size and time: only the change time tells."""
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_live_capture_repeats_a_copy_in_which_something_changed(
    layout: Layout, task: CaptureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfere(
        monkeypatch,
        lambda: rewrite_secretly(task.source / "lib" / "native.so"),
        (task.source / "python").unlink,
    )
    result = asyncio.run(DirectoryCapture(layout).capture_live(task, attempts=3))
    restore(result.layers, partial(layout.open_blob, REPOSITORY), tmp_path / "awake")
    assert listing(tmp_path / "awake") == listing(task.source)
    assert not (tmp_path / "awake" / "python").is_symlink()


def is_tmpfs(folder: Path) -> bool:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    kinds = {Path(mount[1]): mount[2] for mount in mounts}
    return next(kinds[parent] for parent in [folder, *folder.parents] if parent in kinds) == "tmpfs"


def test_a_live_capture_sees_a_store_through_a_memory_map(
    layout: Layout, task: CaptureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_tmpfs(tmp_path):
        pytest.skip("a file system in memory never tells of stores through a memory map")
    file = task.source / "mapped"
    file.write_bytes(b"a" * 4096)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 4096) as mapped:
        mapped[0:5] = b"first"
        interfere(monkeypatch, lambda: mapped.__setitem__(slice(0, 5), b"later"))
        result = asyncio.run(DirectoryCapture(layout).capture_live(task))
    restore(result.layers, partial(layout.open_blob, REPOSITORY), tmp_path / "awake")
    assert (tmp_path / "awake" / "mapped").read_bytes()[:5] == b"later"


def test_a_folder_written_within_the_last_tick_of_the_clock_has_not_settled(
    layout: Layout, task: CaptureTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: task.source.stat().st_ctime_ns + 1_000_000)
    with pytest.raises(Unsettled):
        asyncio.run(DirectoryCapture(layout).capture_live(task))


def test_a_live_capture_that_never_settles_says_so_and_leaves_nothing(
    layout: Layout, task: CaptureTask, tmp_path: Path
) -> None:
    before = state(tmp_path)
    log = task.source / "log"
    log.touch()
    code = "import sys, time\nwhile True:\n    open(sys.argv[1], 'a').write('x')\n    time.sleep(0.001)"
    with subprocess.Popen([sys.executable, "-c", code, str(log)]) as writer:
        deadline = time.monotonic() + 30
        while not log.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            with pytest.raises(Unsettled, match="freeze"):
                asyncio.run(DirectoryCapture(layout).capture_live(task, attempts=2))
        finally:
            writer.kill()
    assert state(tmp_path) == before
    assert asyncio.run(DirectoryCapture(layout).capture_live(task)).changed


def test_a_file_that_grows_fails_a_capture_of_what_should_be_frozen(
    layout: Layout, task: CaptureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(tmp_path)
    grown = iter([1])

    def copy(root: Path, sink: Callable[[bytes], object], *, excludes: Any, progress: Callable[[int], None]) -> Layer:
        def watch(done: int) -> None:
            progress(done)
            if done > 6 and next(grown, None):
                with (root / "lib" / "native.so").open("ab") as file:
                    file.write(b"more")

        return write_layer(root, sink, excludes=excludes, progress=watch)

    monkeypatch.setattr(directory, "write_layer", copy)
    with pytest.raises(FileChanged):
        capture(layout, task)
    assert state(tmp_path) == before
    assert capture(layout, task).bytes_read == 300_010


def test_an_interrupted_capture_is_repeated_from_any_step(
    layout: Layout, task: CaptureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tmp_path / "failpoints"
    points.mkdir()
    monkeypatch.setenv("TORPOR_FAILPOINTS", str(points))

    async def sleep() -> str:
        service = DirectoryCapture(layout)
        result = await service.capture(task)
        await service.verify(task.repository, result.digest)
        return result.digest

    for point in ("capture.layer_written", "capture.manifest_written", "capture.verified"):
        (points / point).write_text("error")
        with pytest.raises(FailpointError, match=point):
            asyncio.run(sleep())
    digest = asyncio.run(sleep())
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [digest]
    hits = [line.split()[-1] for line in (points / "hits.log").read_text().splitlines()]
    assert hits[-3:] == ["capture.layer_written", "capture.manifest_written", "capture.verified"]
    assert list((tmp_path / "layout" / "uploads").iterdir()) == []
