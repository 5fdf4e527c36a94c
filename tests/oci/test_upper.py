"""What a container changed, on a real overlay mount: layers over a base, restored, and compared with what the container saw."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oci.trees import listing
from tests.support import overlay
from tests.support.overlay import Overlay
from torpor_hub.errors import CaptureFailed, FileChanged
from torpor_hub.oci import upper as uppers
from torpor_hub.oci.images import LayerRecord
from torpor_hub.oci.layers import restore, write_layer
from torpor_hub.oci.layout import Layout
from torpor_hub.oci.overlay_marks import Upper
from torpor_hub.oci.scans import Change, Scan, compare, is_untouched, scan
from torpor_hub.oci.upper import write_live, write_upper

pytestmark = pytest.mark.skipif(not overlay.can_mount(), reason="no overlay file system can be mounted here")
EVERYTHING = Change(None)
REPOSITORY = "r"


class Container:
    """A container over a base, and the layers that save it."""

    def __init__(self, folder: Path, mount: Overlay) -> None:
        self.folder = folder
        self.mount = mount
        self.root = mount.merged
        self.layout = Layout(folder / "layout")
        self.layers = [self._write(lambda sink: write_layer(mount.base, sink))]

    def save(self) -> Any:
        """Write one layer of all that changed."""
        return self._add(lambda sink: write_upper(self.mount.change, sink, EVERYTHING))

    def copy_live(self) -> dict[bytes, bytes]:
        """Write one layer while the container runs, and return what it holds."""
        before, held = scan(self.mount.change, live=True), {}

        def write(sink: Callable[[bytes], object]) -> Any:
            layer, copied = write_live(self.mount.change, sink, before)
            held.update(copied)
            return layer

        self._add(write)
        return held

    def save_rest(self, held: dict[bytes, bytes]) -> Change:
        """Write one layer of what changed since a live copy."""
        change = compare(held, scan(self.mount.change))
        self._add(lambda sink: write_upper(self.mount.change, sink, change))
        return change

    def restored(self) -> dict[bytes, dict[str, Any]]:
        shutil.rmtree(self.folder / "restored", ignore_errors=True)
        restore(self.layers, lambda digest: self.layout.open_blob(REPOSITORY, digest), self.folder / "restored")
        return without_top(listing(self.folder / "restored"))

    def seen(self) -> dict[bytes, dict[str, Any]]:
        return without_top(listing(self.root))

    def _add(self, write: Callable[[Callable[[bytes], object]], Any]) -> Any:
        layer = None

        def keep(sink: Callable[[bytes], object]) -> Any:
            nonlocal layer
            layer = write(sink)
            return layer

        self.layers.append(self._write(keep))
        return layer

    def _write(self, write: Callable[[Callable[[bytes], object]], Any]) -> LayerRecord:
        with self.layout.blob_writer(REPOSITORY) as blob:
            record: LayerRecord = write(blob.write).record
            blob.publish(record.digest)
        return record


def without_top(found: dict[bytes, dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    """The folder at the top is made by whoever restores."""
    return {path: seen for path, seen in found.items() if path != b"."}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = tmp_path / "base"
    for folder in ("etc", "opt/env/lib/package", "opt/env/bin", "opt/keep", "opt/replaced/deep"):
        (root / folder).mkdir(parents=True)
    for name in ("etc/conf", "opt/env/lib/package/a.py", "opt/env/lib/package/b.py", "opt/keep/file", "opt/replaced/x"):
        (root / name).write_text(f"base {name}")
    (root / "opt/env/bin/tool").write_text("#!/bin/sh\n")
    (root / "opt/env/bin/tool").chmod(0o755)
    os.link(root / "opt/env/bin/tool", root / "opt/env/bin/tool2")
    (root / "opt/env/link").symlink_to("lib")
    return root


@pytest.fixture
def container(tmp_path: Path, base: Path) -> Iterator[Container]:
    with overlay.mounted(tmp_path, base) as mount:
        yield Container(tmp_path, mount)


def change_much(root: Path) -> None:
    """Every kind of change that a user can make."""
    env = root / "opt/env"
    (env / "lib/package/a.py").unlink()
    (env / "lib/package/b.py").write_text("changed")
    (env / "bin/tool").chmod(0o700)
    (env / "link").unlink()
    (env / "link").mkdir()
    (env / "link/inside").write_text("a link became a folder")
    shutil.rmtree(root / "opt/replaced")
    (root / "opt/replaced").mkdir()
    (root / "opt/replaced/x").write_text("new x in a new folder")
    shutil.rmtree(root / "opt/keep")
    (root / "opt/keep").write_text("a folder became a file")
    (env / "new").mkdir(mode=0o1777)
    (env / "new/one").write_bytes(os.urandom(100_000))
    os.link(env / "new/one", env / "new/two")
    os.setxattr(env / "new/one", "user.any", bytes(range(256)))
    os.setxattr(env / "new/one", "user.overlay.opaque", b"y")
    (env / "new/suid").write_text("x")
    (env / "new/suid").chmod(0o6755)
    (env / "new/far").symlink_to("/nowhere/" + "x" * 2000)
    os.mkfifo(env / "new/pipe")
    strange = os.fsencode(env / "new") + b"/\xff\nname" + b"n" * 240
    os.close(os.open(strange, os.O_CREAT | os.O_WRONLY))
    os.utime(strange, ns=(-5, 4_102_444_800_123_456_789))
    with (env / "new/sparse").open("wb") as file:
        file.truncate(5_000_000)


def test_all_that_a_user_can_change_comes_back(container: Container) -> None:
    change_much(container.root)
    layer = container.save()
    assert container.restored() == container.seen()
    assert layer.skipped == ()


def test_a_deleted_name_of_255_bytes_stays_deleted(tmp_path: Path, base: Path) -> None:
    (base / ("n" * 255)).write_text("x")
    with overlay.mounted(tmp_path, base) as mount:
        container = Container(tmp_path, mount)
        (mount.merged / ("n" * 255)).unlink()
        container.save()
        assert container.restored() == container.seen()


def test_equal_changes_give_equal_bytes(container: Container) -> None:
    change_much(container.root)
    first, second = container.save(), container.save()
    assert first.record == second.record


def test_what_a_layer_cannot_hold_is_named_and_harms_nothing(container: Container) -> None:
    root = container.root
    (root / "opt/.wh.keep").write_text("not a deletion")
    (root / "opt/.wh.etc").mkdir()
    (root / "opt/.wh.etc/inside").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(root / "opt/socket"))
        layer = container.save()
    assert sorted(layer.skipped) == [
        "opt/.wh.etc (a layer means a deletion by such a name)",
        "opt/.wh.keep (a layer means a deletion by such a name)",
        "opt/socket (a socket)",
    ]
    assert container.restored()[b"opt/keep/file"] == container.seen()[b"opt/keep/file"]


def test_a_path_that_no_node_could_restore_is_left_out_and_named(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uppers, "MAX_PATH_BYTES", 60)
    (container.root / "opt" / ("d" * 50) / ("e" * 50)).mkdir(parents=True)
    (container.root / "opt" / ("d" * 50) / ("e" * 50) / "inside").write_text("x")
    (container.root / "opt" / "after").write_text("x")
    (skipped,) = container.save().skipped
    assert "a path of 105 bytes, over 60" in skipped
    assert b"opt/after" in container.restored()


@pytest.mark.parametrize(
    ("mark", "value"),
    [("redirect", b"/elsewhere"), ("metacopy", b""), ("opaque", b"x"), ("whiteout", b""), ("of-tomorrow", b"1")],
)
def test_a_mark_of_unknown_meaning_ends_the_capture(container: Container, mark: str, value: bytes) -> None:
    (container.root / "opt/marked").mkdir()
    os.setxattr(container.mount.upper / "opt/marked", f"trusted.overlay.{mark}", value)
    with pytest.raises(CaptureFailed, match="opt/marked"):
        container.save()


def test_with_user_marks_the_kernel_s_are_the_user_s(tmp_path: Path, base: Path) -> None:
    with overlay.mounted(tmp_path, base, options="userxattr") as mount:
        container = Container(tmp_path, mount)
        shutil.rmtree(mount.merged / "opt/replaced")
        (mount.merged / "opt/replaced").mkdir()
        (mount.merged / "etc/conf").unlink()
        assert os.getxattr(mount.upper / "opt/replaced", "user.overlay.opaque") == b"y"
        container.save()
        assert container.restored() == container.seen()


def test_a_fresh_container_is_untouched_and_its_mount_points_do_not_count(container: Container, base: Path) -> None:
    upper, excludes = container.mount.change, ("etc/hosts", "run/*")
    assert is_untouched(upper, scan(upper, excludes), excludes)
    (container.root / "etc/hosts").write_text("what the runtime puts there")
    assert is_untouched(upper, scan(upper, excludes), excludes)
    assert not is_untouched(upper, scan(upper))
    (container.root / "opt/env").chmod(0o700)
    assert not is_untouched(upper, scan(upper, excludes), excludes)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "etc/conf").unlink(),
        lambda root: (root / "opt/new").mkdir(),
        lambda root: os.utime(root / "opt/env", (1, 1)),
        lambda root: [shutil.rmtree(root / "opt/replaced"), (root / "opt/replaced").mkdir()],
        lambda root: os.chown(root / "opt/env", 5, 5),
    ],
    ids=["deleted", "folder", "time", "emptied", "owner"],
)
def test_any_change_of_a_user_counts(container: Container, change: Callable[[Path], object]) -> None:
    change(container.root)
    assert not is_untouched(container.mount.change, scan(container.mount.change))


def work_on(root: Path) -> None:
    """What a user does to what ``change_much`` left."""
    env = root / "opt/env"
    (env / "new/one").unlink()
    (env / "new/later").write_text("later")
    shutil.rmtree(env / "link")
    (env / "link").write_text("a folder became a file")
    (root / "opt/keep").unlink()
    (root / "opt/keep").mkdir()
    (root / "opt/keep/file").write_text("a file became a folder")
    shutil.rmtree(root / "opt/replaced")
    (root / "opt/replaced").mkdir()
    (root / "opt/replaced/y").write_text("another new folder")
    (env / "bin/tool2").rename(env / "bin/tool3")
    (env / "lib/package/c.py").write_text("c")
    shutil.rmtree(env / "lib/package")


def test_a_live_copy_and_what_changed_since_are_together_what_there_is(container: Container) -> None:
    change_much(container.root)
    held = container.copy_live()
    work_on(container.root)
    change = container.save_rest(held)
    assert container.restored() == container.seen()
    assert b"opt/env/new/two" in (change.wanted or ())
    assert not change.is_empty


def test_what_did_not_change_is_not_written_again(container: Container) -> None:
    change_much(container.root)
    age(container)
    held = container.copy_live()
    assert compare(held, scan(container.mount.change)).is_empty
    (container.root / "opt/env/new/later").write_text("later")
    change = container.save_rest(held)
    assert change.wanted == {b"opt", b"opt/env", b"opt/env/new", b"opt/env/new/later"}
    assert container.restored() == container.seen()


def test_a_folder_that_hides_what_is_below_hides_no_live_copy(container: Container) -> None:
    replaced = container.root / "opt/replaced"
    shutil.rmtree(replaced)
    replaced.mkdir()
    (replaced / "kept").write_text("only in the live copy")
    age(container)
    held = container.copy_live()
    (replaced / "later").write_text("later")
    change = container.save_rest(held)
    assert b"opt/replaced/kept" not in (change.wanted or ())
    assert container.restored() == container.seen()


def test_a_folder_made_anew_is_written_whole(container: Container) -> None:
    package = container.root / "opt/env/lib/package"
    (package / "kept").write_text("moves out and in again")
    age(container)
    held = container.copy_live()
    (package / "kept").rename(container.root / "opt/aside")
    shutil.rmtree(package)
    package.mkdir()
    (container.root / "opt/aside").rename(package / "kept")
    container.save_rest(held)
    assert container.restored() == container.seen()


def test_a_store_through_a_memory_map_after_the_writing_back_shows(container: Container) -> None:
    path = container.root / "opt/mapped"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[0:5] = b"first"
        age(container)
        before = scan(container.mount.change)
        os.sync()
        held: dict[bytes, bytes] = {}

        def write(sink: Callable[[bytes], object]) -> Any:
            layer, copied = write_live(container.mount.change, sink, before)
            held.update(copied)
            return layer

        container._add(write)
        mapped[0:6] = b"second"
        container.save_rest(held)
        assert container.restored() == container.seen()


def test_a_container_that_works_on_all_the_time_is_copied_and_then_saved_whole(container: Container) -> None:
    """Copies while files come, go, shrink, grow and move, then stops and saves the rest: three times over."""
    root = container.root / "opt/env/busy"
    root.mkdir()
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            folder = root / f"d{number % 7}"
            moved = root / f"m{number % 5}"
            folder.mkdir(exist_ok=True)
            (folder / f"f{number % 11}").write_bytes(os.urandom(number * 997 % 50_000))
            if number % 3 == 0:
                shutil.rmtree(moved, ignore_errors=True)
                folder.rename(moved)
            if number % 5 == 0:
                shutil.rmtree(folder, ignore_errors=True)

    for _ in range(3):
        stop.clear()
        thread = threading.Thread(target=churn)
        thread.start()
        try:
            held = container.copy_live()
        finally:
            stop.set()
            thread.join()
        container.save_rest(held)
        assert container.restored() == container.seen()
        del container.layers[1:]


def test_a_write_during_the_frozen_part_is_noticed(container: Container) -> None:
    (container.root / "opt/file").write_bytes(bytes(3_000_000))
    (container.root / "opt/other").write_bytes(bytes(3_000_000))

    def meddle(_done: int) -> None:
        (container.mount.upper / "opt/other").write_text("written meanwhile")

    with pytest.raises(FileChanged):
        write_upper(container.mount.change, lambda _content: None, EVERYTHING, progress=meddle)


def test_a_scan_of_a_running_container_lives_with_what_vanishes(tmp_path: Path) -> None:
    (tmp_path / "upper" / "folder").mkdir(parents=True)
    (tmp_path / "upper" / "folder" / "file").write_text("x")

    def remove() -> None:
        shutil.rmtree(tmp_path / "upper" / "folder", ignore_errors=True)

    seen: Scan = scan(Upper(tmp_path / "upper"), check=remove, live=True)
    assert b"folder/file" not in seen.entries


def age(container: Container) -> None:
    """Wait until no change is so young that the clock could hide the next one."""
    while not scan(container.mount.change).settled:
        continue


def test_devices_are_left_out_and_named(container: Container) -> None:
    try:
        os.mknod(container.root / "opt/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices can be made here")
    assert container.save().skipped == ("opt/device (a device)",)
