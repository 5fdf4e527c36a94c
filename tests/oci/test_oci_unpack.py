"""Archives that are hostile, broken or stacked."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.oci.trees import IS_ROOT, age, as_ordinary_user, listing, packed
from torpor_hub.errors import CorruptImage, UnsafeArchive
from torpor_hub.oci.images import LayerRecord
from torpor_hub.oci.layers import restore, write_layer
from torpor_hub.oci.tarfmt import DIRECTORY, END, FILE, HARD_LINK, Entry, header, padding

Member = tuple[str, str, str]


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for kind, name, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind.encode()
            if kind == "0":
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
            else:
                member.linkname = content
                member.mode = 0o755
                archive.addfile(member)
    return out.getvalue()


def unpack(root: Path, *tars: bytes) -> tuple[str, ...]:
    layers = [packed(content) for content in tars]
    blobs = {record.digest: content for record, content in layers}
    return restore([record for record, _ in layers], lambda digest: io.BytesIO(blobs[digest]), root)


def always(content: bytes) -> Callable[[str], BinaryIO]:
    return lambda _digest: io.BytesIO(content)


ROOT = ("5", "./", "")


@pytest.mark.parametrize(
    "members",
    [
        [("0", "/outside/stolen", "x")],
        [("0", "/stolen", "x")],
        [("0", "../outside/stolen", "x")],
        [("5", "a", ""), ("0", "a/../../outside/stolen", "x")],
        [("5", "..", "")],
        [("2", "link", "../outside"), ("0", "link/stolen", "x")],
        [("2", "link", "../outside"), ("5", "link/folder", "")],
        [("2", "link", "../outside"), ("2", "link/stolen", "x")],
        [("2", "one", "two"), ("2", "two", "../outside"), ("0", "one/stolen", "x")],
        [("5", "a", ""), ("2", "a/up", ".."), ("0", "a/up/../../outside/stolen", "x")],
        [("1", "hard", "../outside/secret")],
        [("1", "hard", "/etc/passwd")],
        [("2", "link", "../outside"), ("1", "hard", "link/secret")],
        [("5", "folder", ""), ("1", "hard", "folder")],
        [("1", "hard", "no-such-thing")],
        [("3", "device", "")],
        [("4", "device", "")],
        [("0", "no-folder/file", "x")],
        [("0", "file", "x"), ("0", "file/below", "x")],
        [("2", "link", "")],
        [("0", ".", "x")],
        [("0", "n" * 256, "x")],
    ],
)
def test_hostile_archives_are_refused(tmp_path: Path, members: Sequence[Member]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    before = listing(outside)
    with pytest.raises(UnsafeArchive, match="the archive"):
        unpack(tmp_path / "root", tar(ROOT, *members))
    assert listing(outside) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]


def test_an_entry_never_goes_through_a_link_that_it_replaces(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    members = [("2", "a", "../outside"), ("5", "a", ""), ("0", "a/secret", "mine"), ("2", "f", "../outside/secret")]
    unpack(tmp_path / "root", tar(ROOT, *members, ("0", "f", "mine")))
    assert (tmp_path / "outside" / "secret").read_text() == "secret"
    assert (tmp_path / "root" / "a" / "secret").read_text() == "mine"
    assert not (tmp_path / "root" / "f").is_symlink()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 700,
        END[:512],
        header(Entry(b"file", FILE, 0o644, 0, 0, 4000, 0)) + b"short",
        header(Entry(b"file", FILE, 0o644, 0, 0, 5, 0))[:-100] + bytes(100),
        header(Entry(b"folder", DIRECTORY, 0o755, 0, 0, 5, 0)),
        header(Entry(b"file", FILE, 0o644, 2**32 - 1, 0, 0, 0)) + END,
        header(Entry(b"file", b"L", 0o644, 0, 0, 0, 0)) + END,
        header(Entry(b"f" * 101, FILE, 0o644, 0, 0, 0, 0)).replace(b"111 path=", b"999 path=") + END,
        header(Entry(b"f" * 101, FILE, 0o644, 0, 0, 0, 0)).replace(b"111 path=", b"11x path=") + END,
    ],
)
def test_broken_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    if content == END[:512]:
        content = header(Entry(b"", DIRECTORY, 0o755, 0, 0, 0, 0))
    with pytest.raises(CorruptImage):
        unpack(tmp_path / "root", content)
    assert list(tmp_path.iterdir()) == []


def sample(root: Path) -> tuple[LayerRecord, bytes]:
    root.mkdir()
    (root / "folder").mkdir()
    (root / "folder" / "file").write_bytes(os.urandom(300_000))
    (root / "text").write_text("hello " * 10_000)
    age(root)
    out = io.BytesIO()
    return write_layer(root, out.write).record, out.getvalue()


def test_a_blob_with_any_byte_flipped_is_named_and_nothing_is_published(tmp_path: Path) -> None:
    record, content = sample(tmp_path / "source")
    for position in range(0, len(content), len(content) // 60):
        broken = content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]
        with pytest.raises(CorruptImage, match=record.digest):
            restore([record], always(broken), tmp_path / "copy")
        assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("cut", [1, 5, 1000, 200_000])
def test_a_blob_that_ends_early_is_named(tmp_path: Path, cut: int) -> None:
    record, content = sample(tmp_path / "source")
    with pytest.raises(CorruptImage, match=record.digest):
        restore([record], always(content[:-cut]), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_layer_that_is_another_inside_than_its_record_says_is_refused(tmp_path: Path) -> None:
    record, content = sample(tmp_path / "source")
    wrong = LayerRecord(record.digest, "sha256:" + "0" * 64, record.size_bytes, record.uncompressed_bytes)
    with pytest.raises(CorruptImage, match=wrong.diff_id):
        restore([wrong], always(content), tmp_path / "copy")
    other = LayerRecord("sha256:" + "0" * 64, record.diff_id, record.size_bytes, record.uncompressed_bytes)
    with pytest.raises(CorruptImage, match=other.digest):
        restore([other], always(content), tmp_path / "copy")
    longer = LayerRecord(record.digest, record.diff_id, record.size_bytes, record.uncompressed_bytes - 1)
    with pytest.raises(CorruptImage, match="longer"):
        restore([longer], always(content), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_restore_that_was_interrupted_is_repeated(tmp_path: Path) -> None:
    record, content = sample(tmp_path / "source")

    def stop(done: int) -> None:
        raise InterruptedError

    partial = tmp_path / ".copy.partial"
    partial.mkdir()
    (partial / "folder").mkdir()
    (partial / "stale").write_text("x")
    (partial / "folder").chmod(0)
    with pytest.raises(InterruptedError):
        restore([record], always(content), tmp_path / "copy", progress=stop)
    restore([record], always(content), tmp_path / "copy")
    assert listing(tmp_path / "copy") == listing(tmp_path / "source")
    assert not partial.exists()


def test_a_restore_never_replaces_what_is_there(tmp_path: Path) -> None:
    record, content = sample(tmp_path / "source")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "unsaved").write_text("precious")
    with pytest.raises(FileExistsError):
        restore([record], always(content), tmp_path / "copy")
    assert (tmp_path / "copy" / "unsaved").read_text() == "precious"


def test_progress_counts_the_bytes_of_all_layers(tmp_path: Path) -> None:
    record, content = sample(tmp_path / "source")
    seen: list[int] = []
    restore([record, record], always(content), tmp_path / "copy", progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 2 * record.uncompressed_bytes


def test_an_ordinary_user_restores_everything_but_owners(shared_path: Path) -> None:
    entries = [
        Entry(b"", DIRECTORY, 0o750, 0, 0, 0, 10**18 + 1),
        Entry(b"closed", DIRECTORY, 0o500, 0, 0, 0, 10**18 + 2),
        Entry(b"closed/none", DIRECTORY, 0, 0, 0, 0, 10**18 + 3),
        Entry(b"closed/none/file", FILE, 0o4755, 0, 0, 3, 10**18 + 4, xattrs=((b"trusted.x", b"1"), (b"user.x", b"1"))),
    ]
    archive = b"".join(map(header, entries)) + b"abc" + padding(3)
    link = header(Entry(b"closed/hard", HARD_LINK, 0o755, 0, 0, 0, 0, target=b"closed/none/file"))
    with as_ordinary_user():
        for _ in range(2):
            left_out = unpack(shared_path / "root", archive + link + END)
            assert len(left_out) == 1
            assert left_out[0].startswith("closed/none/file (the attribute trusted.x: ")
            assert stat.S_IMODE((shared_path / "root" / "closed").stat().st_mode) == 0o500
            assert (shared_path / "root" / "closed" / "hard").stat().st_mode & stat.S_ISUID == 0
            assert (shared_path / "root" / "closed").stat().st_mtime_ns == 10**18 + 2
            (shared_path / "root").rename(shared_path / ".root.partial")
        unpack(shared_path / "root", archive + link + END)
        assert os.getxattr(shared_path / "root" / "closed" / "hard", "user.x") == b"1"
        for folder in ("closed", "closed/none"):
            (shared_path / "root" / folder).chmod(0o700)


def test_later_layers_replace_and_delete_what_earlier_ones_wrote(tmp_path: Path) -> None:
    base = tar(
        ROOT,
        *[("5", name, "") for name in ("kept", "gone", "gone/deep", "opaque", "opaque/sub", "turned")],
        *[
            ("0", name, "old")
            for name in ("kept/a", "kept/b", "gone/deep/x", "opaque/old", "opaque/sub/old", "turned/x")
        ],
        ("2", "link", "kept"),
        ("0", "file", "old"),
    )
    above = tar(
        ("5", "kept", ""),
        ("0", "kept/.wh.a", ""),
        ("0", "kept/c", "new"),
        ("0", ".wh.gone", ""),
        ("5", "opaque", ""),
        ("5", "opaque/sub", ""),
        ("0", "opaque/sub/new", "new"),
        ("0", "opaque/.wh..wh..opq", ""),
        ("0", "turned", "a file now"),
        ("5", "link", ""),
        ("0", "link/inside", "new"),
        ("0", ".wh.file", ""),
        ("0", ".wh.never-there", ""),
        ("0", "again", "new"),
        ("0", ".wh.again", ""),
    )
    unpack(tmp_path / "root", base, above)
    found = sorted(str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*"))
    assert found == [
        "again",
        "kept",
        "kept/b",
        "kept/c",
        "link",
        "link/inside",
        "opaque",
        "opaque/sub",
        "opaque/sub/new",
        "turned",
    ]
    assert (tmp_path / "root" / "turned").read_text() == "a file now"


@pytest.mark.parametrize("name", [".wh.", ".wh...", "../.wh.x", "link/.wh.secret"])
def test_a_deletion_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("x")
    base = tar(ROOT, ("2", "link", ".."))
    with pytest.raises(UnsafeArchive):
        unpack(tmp_path / "root", base, tar(("0", name, "")))
    assert (tmp_path / "secret").exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root may give files away")
def test_a_capability_outlives_the_change_of_owner(tmp_path: Path) -> None:
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    entry = Entry(b"ping", FILE, 0o6755, 1000, 1000, 0, 0, xattrs=((b"security.capability", value),))
    assert unpack(tmp_path / "root", header(Entry(b"", DIRECTORY, 0o755, 0, 0, 0, 0)) + header(entry) + END) == ()
    assert os.getxattr(tmp_path / "root" / "ping", "security.capability") == value
    assert stat.S_IMODE((tmp_path / "root" / "ping").stat().st_mode) == 0o6755
