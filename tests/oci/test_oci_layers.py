from __future__ import annotations

import io
import os
import socket
import struct
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.oci.trees import IS_ROOT, age, as_ordinary_user, listing
from torpor_hub.errors import CaptureFailed, FileChanged
from torpor_hub.oci import streams
from torpor_hub.oci.layers import Layer, restore, write_layer
from torpor_hub.oci.tarfmt import FILE, Entry, header
from torpor_hub.oci.unpack import remove_tree

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *part)
    for part in [(1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1)]
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


def written(root: Path, *excludes: str) -> tuple[Layer, bytes]:
    out = io.BytesIO()
    return write_layer(root, out.write, excludes=excludes), out.getvalue()


def round_trip(root: Path, *excludes: str) -> tuple[Path, tuple[str, ...]]:
    layer, content = written(root, *excludes)
    copy = root.with_name("copy")
    left_out = restore([layer.record], lambda _digest: io.BytesIO(content), copy)
    assert left_out == ()
    return copy, layer.skipped


def assert_survives(root: Path) -> None:
    before = listing(root)
    copy, skipped = round_trip(root)
    assert listing(copy) == before
    assert skipped == ()
    assert written(copy)[0].record == written(root)[0].record


def test_files_folders_and_links_survive(tree: Path) -> None:
    (tree / "package" / "inner").mkdir(parents=True)
    (tree / "package" / "module.py").write_text("print('hello')\n")
    (tree / "package" / "module.pyc").write_bytes(bytes(range(256)) * 5000)
    (tree / "package" / "empty").touch()
    (tree / "package" / "inner" / "big").write_bytes(os.urandom(3 * 1024 * 1024 + 17))
    (tree / "loop").symlink_to("loop")
    (tree / "absolute").symlink_to("/etc/passwd")
    (tree / "dangling").symlink_to("no/such/thing")
    (tree / "folder").symlink_to("package")
    age(tree)
    assert_survives(tree)


def test_modes_survive(tree: Path) -> None:
    for mode in (0o444, 0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o600):
        (tree / oct(mode)).write_text("x")
        (tree / oct(mode)).chmod(mode)
    for mode in (0o700, 0o1777, 0o2775, 0o555):
        (tree / f"folder-{mode:o}").mkdir()
        (tree / f"folder-{mode:o}" / "inside").touch()
        (tree / f"folder-{mode:o}").chmod(mode)
    tree.chmod(0o751)
    assert_survives(tree)


@pytest.mark.parametrize(
    "mtime_ns",
    [0, 1, 999_999_999, 1_700_000_000_000_000_001, 4_102_444_800_500_000_000, -1, -1_000_000_000, -86_400_500_000_000],
)
def test_times_survive_to_the_nanosecond(tree: Path, mtime_ns: int) -> None:
    (tree / "folder").mkdir()
    (tree / "folder" / "file").write_text("x")
    (tree / "link").symlink_to("folder")
    age(tree, mtime_ns)
    assert (tree / "folder" / "file").stat().st_mtime_ns == mtime_ns
    assert_survives(tree)


def test_hard_links_stay_links(tree: Path) -> None:
    (tree / "b").mkdir()
    (tree / "a").write_text("shared")
    for name in ("b/second", "c", "z"):
        os.link(tree / "a", tree / name)
    (tree / "symbolic").symlink_to("a")
    os.link(tree / "symbolic", tree / "symbolic-too", follow_symlinks=False)
    (tree / "alone").write_text("shared")
    assert_survives(tree)
    assert (tree.with_name("copy") / "a").stat().st_nlink == 4


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe not utf-8",
        b"new\nline",
        b"trailing\n",
        b" space ",
        b"-rf *",
        "日本".encode(),
        b"n" * 255,
        b"\xe9" * 255,
        b"...",
        b"PaxHeader",
        b"a=b",
        b"\\x",
    ],
)
def test_odd_names_survive(tree: Path, name: bytes) -> None:
    top = os.fsencode(tree)
    os.mkdir(top + b"/folder")  # noqa: PTH102 - bytes
    for path in (b"/" + name, b"/folder/" + name):
        with open(top + path, "wb") as file:  # noqa: PTH123 - bytes
            file.write(name)
    os.symlink(name, top + b"/link")  # noqa: PTH211 - bytes
    os.link(top + b"/" + name, top + b"/~hard")
    assert_survives(tree)


def test_a_path_of_nearly_four_kilobytes_survives(tree: Path) -> None:
    folder = tree
    while len(os.fsencode(folder)) < 3500:
        folder = folder / ("d" * 250)
        folder.mkdir()
    (folder / "file").write_text("deep")
    (folder / "link").symlink_to("t" * 4000)
    assert_survives(tree)


def test_depth_has_no_limit(tree: Path) -> None:
    depth = 1100
    folder = os.open(tree, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("leaf", os.O_CREAT, dir_fd=folder))
    os.close(folder)
    layer, content = written(tree)
    copy = tree.with_name("copy")
    restore([layer.record], lambda _digest: io.BytesIO(content), copy)
    assert os.path.exists(f"{copy}{'/d' * depth}/leaf")  # noqa: PTH110 - Path is slow at this depth
    assert written(copy)[0].record == layer.record
    remove_tree(tree)
    remove_tree(copy)
    assert not tree.exists()
    assert not copy.exists()


def test_fifos_survive_and_are_never_opened(tree: Path) -> None:
    os.mkfifo(tree / "pipe", 0o640)
    assert_survives(tree)


def test_attributes_survive(tree: Path) -> None:
    (tree / "file").write_text("x")
    (tree / "folder").mkdir()
    for path in (tree, tree / "file", tree / "folder"):
        os.setxattr(path, "user.binary", bytes(range(256)))
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.odd=name%3D", b"value\n")
    os.setxattr(tree / "file", "system.posix_acl_access", ACL)
    assert_survives(tree)


@pytest.mark.skipif(not IS_ROOT, reason="only root may set file capabilities")
def test_capabilities_survive(tree: Path) -> None:
    (tree / "ping").write_text("x")
    os.setxattr(tree / "ping", "security.capability", CAPABILITY)
    assert_survives(tree)


@pytest.mark.skipif(not IS_ROOT, reason="only root may give files away")
def test_owners_survive_also_large_ones(tree: Path) -> None:
    for uid in (1000, 2**21 - 1, 2**21, 3_000_000_000):
        (tree / str(uid)).write_text("x")
        (tree / f"{uid}-folder").mkdir()
        (tree / f"{uid}-link").symlink_to("x")
        for name in (f"{uid}", f"{uid}-folder", f"{uid}-link"):
            os.chown(tree / name, uid, uid + 1, follow_symlinks=False)
    (tree / "1000").chmod(0o6755)
    assert_survives(tree)


def test_a_sparse_file_stays_sparse(tree: Path) -> None:
    with (tree / "sparse").open("wb") as file:
        file.seek(40 * 1024 * 1024)
        file.write(b"end")
        file.truncate(64 * 1024 * 1024 + 5)
    with (tree / "all-hole").open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    assert_survives(tree)
    assert (tree.with_name("copy") / "sparse").stat().st_blocks * 512 < 4 * 1024 * 1024


def test_sockets_and_names_that_mean_a_deletion_are_skipped_and_named(tree: Path) -> None:
    (tree / "kept").write_text("x")
    (tree / ".wh.kept").write_text("would delete")
    (tree / ".wh..wh..opq").write_text("would delete")
    (tree / "folder").mkdir()
    (tree / "folder" / ".wh.folder").mkdir()
    (tree / "folder" / ".wh.folder" / "inside").write_text("x")
    (tree / "folder" / ".wh.folder0").write_text("x")
    (tree / "folder" / "after").write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "s"))
        copy, skipped = round_trip(tree)
    assert sorted(os.fsdecode(path) for path in listing(copy)) == [".", "folder", "folder/after", "kept"]
    assert {line.split(" (")[0] for line in skipped} == {
        ".wh.kept",
        ".wh..wh..opq",
        "folder/.wh.folder",
        "folder/.wh.folder0",
        "s",
    }


@pytest.mark.skipif(not IS_ROOT, reason="only root may make devices")
def test_devices_are_skipped_and_named(tree: Path) -> None:
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    copy, skipped = round_trip(tree)
    assert skipped == ("null (a device)",)
    assert not (copy / "null").exists()


def test_the_list_of_what_was_skipped_has_an_end(tree: Path) -> None:
    for number in range(150):
        (tree / f".wh.{number}").touch()
    layer, _ = written(tree)
    assert len(layer.skipped) == 101
    assert layer.skipped[-1] == "and 50 more"


def test_only_what_is_named_is_excluded(tree: Path) -> None:
    for name in ("tmp/x", "run.pid", "deep/run.pid", "deep/tmpx/y", "deep/cache/z", "cache/z", "__pycache__/m.pyc"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    copy, skipped = round_trip(tree, "*.pid", "tmp", "deep/cache", "t*y")
    kept = sorted(os.fsdecode(path) for path in listing(copy))
    assert kept == [".", "__pycache__", "__pycache__/m.pyc", "cache", "cache/z", "deep", "deep/tmpx", "deep/tmpx/y"]
    assert skipped == ()


def test_equal_folders_give_equal_bytes_with_any_number_of_threads(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        (tree / f"file-{number}").write_bytes(os.urandom(60_000) + bytes(60_000))
    results = [written(tree)]
    for threads in (1, 2, 4):
        monkeypatch.setattr(streams, "THREADS", threads)
        results.append(written(tree))
    assert all(content == results[0][1] for _, content in results)
    assert len({layer.record for layer, _ in results}) == 1


def test_the_header_of_an_entry_never_changes() -> None:
    entry = Entry(b"a/" + b"n" * 120, FILE, 0o4755, 3_000_000_000, 7, 10**11, -1, xattrs=((b"user.k=", b"\0\xff"),))
    blocks = header(entry)
    records = b"".join(
        (
            b"132 path=a/" + b"n" * 120 + b"\n",
            b"18 uid=3000000000\n",
            b"21 size=100000000000\n",
            b"22 mtime=-0.000000001\n",
            b"29 SCHILY.xattr.user.k%3D=\0\xff\n",
        )
    )
    assert len(blocks) == 3 * 512
    assert blocks[512:1024] == records.ljust(512, b"\0")
    assert blocks[1024:1124] == b"a/" + b"n" * 98
    assert blocks[1124:1160] == b"0004755\x000000000\x000000007\x0000000000000\0"
    checksum = sum(blocks[1024:1172]) + 8 * 32 + sum(blocks[1180:])
    assert blocks[1160:1188] == b"%011o\0%06o\0 0" % (0, checksum) + bytes(7)


def test_python_reads_the_archive_as_it_was_meant(tree: Path) -> None:
    (tree / "folder").mkdir()
    (tree / "folder" / ("long" * 40)).write_text("content")
    (tree / os.fsdecode(b"\xff")).write_text("odd")
    (tree / "link").symlink_to("folder")
    os.setxattr(tree / "folder", "user.key", b"value")
    os.link(tree / "folder" / ("long" * 40), tree / "zhard")
    age(tree)
    _, content = written(tree)
    tar = zstandard.ZstdDecompressor().stream_reader(content).read()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = {member.name: member for member in archive}
        assert list(members) == [".", "folder", "folder/" + "long" * 40, "link", "zhard", os.fsdecode(b"\xff")]
        assert members["folder"].pax_headers["SCHILY.xattr.user.key"] == "value"
        assert members["folder"].pax_headers["mtime"] == "1600000000.123456789"
        assert members["link"].linkname == "folder"
        assert members["zhard"].islnk()
        file = archive.extractfile("folder/" + "long" * 40)
        assert file is not None
        assert file.read() == b"content"


def grow(file: Path) -> None:
    with file.open("ab") as out:
        out.write(b"more")


def overwrite(file: Path) -> None:
    with file.open("r+b") as out:
        out.write(b"other")


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(bytes(file.stat().st_size))
    other.rename(file)


@pytest.mark.parametrize(
    "change", [grow, overwrite, replace, Path.unlink, lambda file: os.truncate(file, 5), lambda file: file.chmod(0o600)]
)
def test_a_file_that_changes_while_it_is_read_is_an_error(tree: Path, change: Callable[[Path], None]) -> None:
    file = tree / "file"
    file.write_bytes(os.urandom(4 * 1024 * 1024))
    file.chmod(0o644)
    age(tree)
    changes = iter([change])

    def act(done: int) -> None:
        if done:
            for step in changes:
                step(file)

    with pytest.raises(FileChanged, match=r"file changed|folder itself"):
        write_layer(tree, lambda _content: None, progress=act)


def to_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent.with_name("outside"))


def to_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("swap", [to_link, to_pipe, to_folder, replace, Path.unlink])
def test_a_file_swapped_just_before_it_is_opened_is_never_read(tree: Path, swap: Callable[[Path], None]) -> None:
    (tree.with_name("outside")).write_bytes(b"SECRET")
    (tree / "file").write_bytes(b"public")
    steps = iter([lambda _file: None, swap])
    out = io.BytesIO()
    with pytest.raises(FileChanged):
        write_layer(tree, out.write, progress=lambda _done: next(steps)(tree / "file"))
    assert b"SECRET" not in out.getvalue()
    assert list(steps) == []


@pytest.mark.parametrize("name", ["folder/new", "new", "folder/zz", "zz"])
def test_a_folder_that_changes_while_it_is_read_is_an_error(tree: Path, name: str) -> None:
    (tree / "folder").mkdir()
    (tree / "folder" / "old").write_text("x")
    age(tree)

    def act(done: int) -> None:
        if done:
            (tree / name).touch()

    with pytest.raises(FileChanged):
        write_layer(tree, lambda _content: None, progress=act)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureFailed, match="no-such-folder"):
        write_layer(tmp_path / "no-such-folder", lambda _content: None)


def test_a_file_that_cannot_be_read_is_named(shared_path: Path) -> None:
    (shared_path / "secret").touch(mode=0)
    with as_ordinary_user(), pytest.raises(CaptureFailed, match="secret"):
        written(shared_path)


def test_swapping_a_folder_for_a_link_never_leads_outside(tree: Path) -> None:
    outside = tree.with_name("outside")
    outside.mkdir()
    (outside / "file").write_bytes(b"SECRET" * 100)
    (tree / "folder").mkdir()
    (tree / "folder" / "file").write_bytes(b"harmless")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (tree / "folder").rename(tree / "away")
            (tree / "folder").symlink_to(outside)
            (tree / "folder").unlink()
            (tree / "away").rename(tree / "folder")

    thread = threading.Thread(target=swap)
    thread.start()
    leaks = torn = 0
    try:
        for _ in range(300):
            try:
                _, content = written(tree)
            except FileChanged:
                torn += 1
                continue
            leaks += b"SECRET" in zstandard.ZstdDecompressor().stream_reader(content).read()
    finally:
        done.set()
        thread.join()
    assert leaks == 0
    assert torn > 0
