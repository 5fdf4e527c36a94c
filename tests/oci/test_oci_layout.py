from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.oci.trees import sha256
from torpor_hub.errors import CorruptImage, ImageMissing
from torpor_hub.oci import images
from torpor_hub.oci.images import LayerRecord
from torpor_hub.oci.layers import restore, write_layer
from torpor_hub.oci.layout import Layout

REPOSITORY = "torpor/workspaces/team/ws-1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def put_image(layout: Layout, content: bytes = b"content", tag: str = "op-1", repository: str = REPOSITORY) -> str:
    digest = layout.put_blob(repository, content)
    config = images.image_config(
        [LayerRecord(digest, sha256(content), len(content), len(content))], created="now", architecture="amd64"
    )
    layout.put_blob(repository, config)
    layer = LayerRecord(digest, sha256(content), len(content), len(content))
    return layout.put_manifest(repository, tag, images.image_manifest(config, [layer], {}))


def blobs(tmp_path: Path) -> set[str]:
    return {"sha256:" + path.name for path in (tmp_path / "layout" / "blobs" / "sha256").iterdir()}


def blob_file(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "layout" / "blobs" / "sha256" / digest.removeprefix("sha256:")


def refs(tmp_path: Path) -> list[str]:
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    return [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]


def test_the_folder_is_an_image_layout(layout: Layout, tmp_path: Path) -> None:
    digest = put_image(layout)
    assert json.loads((tmp_path / "layout" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    assert index["schemaVersion"] == 2
    assert index["manifests"] == [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": blob_file(tmp_path, digest).stat().st_size,
            "annotations": {"org.opencontainers.image.ref.name": f"{REPOSITORY}:op-1"},
        }
    ]
    assert all(sha256(blob_file(tmp_path, name).read_bytes()) == name for name in blobs(tmp_path))


def test_what_was_put_is_read_back_by_another_process_s_layout(layout: Layout, tmp_path: Path) -> None:
    digest = put_image(layout, b"some layer")
    other = Layout(tmp_path / "layout")
    image = other.verify(REPOSITORY, digest)
    assert other.read_image(REPOSITORY, digest) == image
    with other.open_blob(REPOSITORY, image.layers[0].digest) as file:
        assert file.read() == b"some layer"


def test_a_blob_that_is_not_published_leaves_nothing(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), layout.blob_writer(REPOSITORY) as blob:
        blob.write(b"half")
        raise ZeroDivisionError
    assert blobs(tmp_path) == set()
    assert list((tmp_path / "layout" / "uploads").iterdir()) == []


def test_a_disk_that_fills_up_publishes_nothing(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(os.urandom(3_000_000))

    def full(_content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), layout.blob_writer(REPOSITORY) as blob:
        blob.publish(write_layer(tmp_path / "tree", full).record.digest)
    assert blobs(tmp_path) == set()
    assert list((tmp_path / "layout" / "uploads").iterdir()) == []


def test_repeating_everything_changes_nothing(layout: Layout, tmp_path: Path) -> None:
    digest = put_image(layout)
    before = (blobs(tmp_path), (tmp_path / "layout" / "index.json").read_bytes())
    assert put_image(layout) == digest
    assert (blobs(tmp_path), (tmp_path / "layout" / "index.json").read_bytes()) == before


def test_a_manifest_needs_its_blobs(layout: Layout, tmp_path: Path) -> None:
    digest = put_image(layout)
    manifest = layout.read_manifest(REPOSITORY, digest)
    layer = layout.read_image(REPOSITORY, digest).layers[0].digest
    blob_file(tmp_path, layer).unlink()
    with pytest.raises(ImageMissing, match=layer):
        layout.put_manifest(REPOSITORY, "op-2", manifest)
    assert refs(tmp_path) == [f"{REPOSITORY}:op-1"]


def test_a_manifest_belongs_to_its_repository(layout: Layout) -> None:
    digest = put_image(layout)
    with pytest.raises(ImageMissing, match="torpor/workspaces/other/ws-1"):
        layout.read_manifest("torpor/workspaces/other/ws-1", digest)
    with pytest.raises(ImageMissing):
        layout.read_manifest(REPOSITORY, "sha256:" + "0" * 64)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../index.json", "sha256:" + "0" * 63, "latest"])
def test_only_digests_name_blobs(layout: Layout, digest: str) -> None:
    with pytest.raises(ImageMissing):
        layout.open_blob(REPOSITORY, digest)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "lose"])
def test_a_lying_disk_is_found_out_and_the_blob_named(layout: Layout, tmp_path: Path, which: int, damage: str) -> None:
    digest = put_image(layout, os.urandom(100_000))
    blob = layout.read_image(REPOSITORY, digest).blobs[which].digest
    file = blob_file(tmp_path, blob)
    content = file.read_bytes()
    middle = len(content) // 2
    if damage == "lose":
        file.unlink()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"flip": flipped, "cut": content[:-1], "grow": content + b"\0"}[damage])
    with pytest.raises(CorruptImage, match=blob):
        layout.verify(REPOSITORY, digest)


def test_a_damaged_manifest_is_found_out(layout: Layout, tmp_path: Path) -> None:
    digest = put_image(layout)
    file = blob_file(tmp_path, digest)
    file.write_bytes(file.read_bytes().replace(b"schemaVersion", b"schemaversion"))
    with pytest.raises(CorruptImage, match=digest):
        layout.verify(REPOSITORY, digest)


def test_putting_a_blob_again_heals_it(layout: Layout, tmp_path: Path) -> None:
    digest = put_image(layout, b"precious")
    layer = layout.read_image(REPOSITORY, digest).layers[0].digest
    blob_file(tmp_path, layer).write_bytes(b"rubbish!")
    put_image(layout, b"precious", tag="op-2")
    assert layout.verify(REPOSITORY, digest).layers[0].digest == layer


def test_verifying_reports_bytes_and_can_be_stopped(layout: Layout) -> None:
    digest = put_image(layout, os.urandom(2_500_000))
    image = layout.read_image(REPOSITORY, digest)
    seen: list[int] = []
    layout.verify(REPOSITORY, digest, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == sum(blob.size_bytes for blob in image.blobs)

    def stop(_done: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        layout.verify(REPOSITORY, digest, stop)


PUT = """
import sys
from pathlib import Path
from torpor_hub.oci.layout import Layout
from tests.oci.test_oci_layout import put_image
layout = Layout(Path(sys.argv[1]))
for number in range(10):
    put_image(layout, f"{sys.argv[2]}-{number}".encode(), tag=f"{sys.argv[2]}-{number}")
"""


def test_many_processes_write_and_no_tag_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUT, str(tmp_path / "layout")]
    writers = [subprocess.Popen([*command, str(writer)]) for writer in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    expected = sorted(f"{REPOSITORY}:{writer}-{number}" for writer in range(4) for number in range(10))
    assert refs(tmp_path) == expected
    layout = Layout(tmp_path / "layout")
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    assert all(layout.verify(REPOSITORY, entry["digest"]) for entry in index["manifests"])


def make_old(tmp_path: Path) -> None:
    past = time.time() - 3600
    for path in (tmp_path / "layout").rglob("*"):
        os.utime(path, (past, past))


def test_collecting_removes_what_nothing_needs_and_keeps_the_rest(layout: Layout, tmp_path: Path) -> None:
    kept = put_image(layout, b"kept", "op-1")
    gone = put_image(layout, b"gone", "op-2")
    shared = put_image(layout, b"kept", "op-3", "torpor/workspaces/other/ws-2")
    (tmp_path / "layout" / "uploads" / "half").write_text("half")
    orphans = {gone, *(blob.digest for blob in layout.read_image(REPOSITORY, gone).blobs)}
    make_old(tmp_path)
    assert layout.collect(grace_s=60) == ()
    layout.delete_manifest(REPOSITORY, gone)
    layout.delete_manifest(REPOSITORY, gone)
    assert set(layout.collect(grace_s=60)) == orphans
    assert layout.collect(grace_s=60) == ()
    assert list((tmp_path / "layout" / "uploads").iterdir()) == []
    layout.delete_manifest(REPOSITORY, kept)
    layout.collect(grace_s=60)
    assert layout.verify("torpor/workspaces/other/ws-2", shared)
    with pytest.raises(ImageMissing):
        layout.read_manifest(REPOSITORY, kept)


def test_collecting_spares_what_is_being_written(layout: Layout) -> None:
    fresh = layout.put_blob(REPOSITORY, b"the manifest comes next")
    with layout.blob_writer(REPOSITORY) as blob:
        blob.write(b"later")
        assert layout.collect(grace_s=60) == ()
        blob.publish(sha256(b"later"))
    assert layout.has_blob(REPOSITORY, fresh, len(b"the manifest comes next"))
    assert layout.has_blob(REPOSITORY, sha256(b"later"), 5)


@pytest.mark.parametrize("damage", ["lost", "broken", "manifest"])
def test_collecting_removes_nothing_when_it_cannot_know_what_is_needed(
    layout: Layout, tmp_path: Path, damage: str
) -> None:
    digest = put_image(layout)
    layout.put_blob(REPOSITORY, b"an orphan")
    index = tmp_path / "layout" / "index.json"
    if damage == "lost":
        index.unlink()
    elif damage == "broken":
        index.write_text('{"manifests": [')
    else:
        blob_file(tmp_path, digest).unlink()
    make_old(tmp_path)
    before = blobs(tmp_path)
    with pytest.raises(CorruptImage):
        Layout(tmp_path / "layout").collect(grace_s=60)
    assert blobs(tmp_path) == before


def test_a_saved_folder_is_restored_from_its_manifest_alone(layout: Layout, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("hello")
    with layout.blob_writer(REPOSITORY) as blob:
        record = write_layer(source, blob.write).record
        blob.publish(record.digest)
    config = images.image_config([record], created="now", architecture="amd64")
    layout.put_blob(REPOSITORY, config)
    digest = layout.put_manifest(REPOSITORY, "op-1", images.image_manifest(config, [record], {}))
    image = layout.verify(REPOSITORY, digest)
    restore(image.layers, partial(layout.open_blob, REPOSITORY), tmp_path / "copy")
    assert (tmp_path / "copy" / "file").read_text() == "hello"
