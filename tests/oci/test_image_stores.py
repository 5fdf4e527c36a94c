"""What every store of images does: a layout on disk, a registry in this process, and a real registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.oci.trees import listing, sha256
from tests.support import registry as registries
from torpor_hub.errors import CorruptImage, ImageMissing
from torpor_hub.oci import images
from torpor_hub.oci.images import Descriptor, LayerRecord
from torpor_hub.oci.layers import restore, write_layer
from torpor_hub.oci.layout import Layout
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address
from torpor_hub.oci.store import ImageStore

PROFILES, WORKSPACE = "torpor/profiles/default", "torpor/workspaces/team/ws-1"
STORES = ("layout", "fake", pytest.param("real", marks=pytest.mark.cluster))


@pytest.fixture(scope="module")
def real_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not registries.is_installed():
        pytest.skip("the program registry is not on the PATH")
    with registries.real(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ImageStore]:
    if request.param == "layout":
        yield Layout(tmp_path / "layout")
        return
    if request.param == "real":
        registry = Registry(Address(request.getfixturevalue("real_host"), insecure=True))
        yield registry
        registry.close()
        return
    with registries.fake() as fake:
        registry = Registry(Address(fake.host, insecure=True))
        yield registry
        registry.close()


def put_image(store: ImageStore, repository: str, tag: str, content: bytes) -> str:
    layer = LayerRecord(store.put_blob(repository, content), sha256(content), len(content), len(content))
    config = images.image_config([layer], created="2026-11-21T00:00:00Z", architecture="amd64")
    store.put_blob(repository, config)
    return store.put_manifest(repository, tag, images.image_manifest(config, [layer], {images.WORKSPACE: tag}))


def test_an_image_reads_back_as_it_was_put(store: ImageStore) -> None:
    content = os.urandom(100_000)
    digest = put_image(store, WORKSPACE, "op-1", content)
    image = store.verify(WORKSPACE, digest)
    assert store.read_image(WORKSPACE, digest) == image
    assert images.digest_of(store.read_manifest(WORKSPACE, digest)) == digest
    assert images.digest_of(store.read_config(WORKSPACE, digest)) == image.config.digest
    assert image.annotations == {images.WORKSPACE: "op-1"}
    with store.open_blob(WORKSPACE, image.layers[0].digest) as body:
        assert body.read() == content


def test_a_layer_streams_through_in_many_chunks_and_restores_the_same_tree(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "tree" / "folder").mkdir(parents=True)
    (tmp_path / "tree" / "folder" / "large").write_bytes(os.urandom(21_000_000))
    with store.blob_writer(WORKSPACE) as blob:
        layer = write_layer(tmp_path / "tree", blob.write).record
        blob.publish(layer.digest)
    assert store.has_blob(WORKSPACE, layer.digest, layer.size_bytes)
    restore([layer], partial(store.open_blob, WORKSPACE), tmp_path / "copy")
    assert listing(tmp_path / "copy") == listing(tmp_path / "tree")


def test_repeating_a_put_changes_nothing(store: ImageStore) -> None:
    content = os.urandom(1000)
    digest = put_image(store, WORKSPACE, "op-2", content)
    assert put_image(store, WORKSPACE, "op-2", content) == digest
    store.verify(WORKSPACE, digest)


def test_an_empty_blob_is_a_blob(store: ImageStore) -> None:
    digest = store.put_blob(WORKSPACE, b"")
    assert store.has_blob(WORKSPACE, digest, 0)
    with store.open_blob(WORKSPACE, digest) as body:
        assert body.read() == b""


def test_a_blob_that_is_not_published_is_not_there(store: ImageStore) -> None:
    content = os.urandom(9_000_000)
    with pytest.raises(ZeroDivisionError), store.blob_writer(WORKSPACE) as blob:
        blob.write(content)
        raise ZeroDivisionError
    assert not store.has_blob(WORKSPACE, sha256(content), len(content))


def test_a_blob_of_another_size_is_not_the_blob(store: ImageStore) -> None:
    digest = store.put_blob(WORKSPACE, b"content")
    assert not store.has_blob(WORKSPACE, digest, 8)


def test_a_blob_is_borrowed_from_another_repository(store: ImageStore) -> None:
    content = os.urandom(1000)
    digest = store.put_blob(PROFILES, content)
    store.borrow_blob(WORKSPACE, PROFILES, Descriptor(images.LAYER, digest, 1000))
    assert store.has_blob(WORKSPACE, digest, 1000)
    with pytest.raises(ImageMissing):
        store.borrow_blob(WORKSPACE, PROFILES, Descriptor(images.LAYER, "sha256:" + "0" * 64, 1000))


def test_a_manifest_needs_its_blobs(store: ImageStore) -> None:
    absent = sha256(os.urandom(9))
    layer = LayerRecord(absent, absent, 100, 100)
    config = images.image_config([layer], created="now", architecture="amd64")
    store.put_blob(WORKSPACE, config)
    with pytest.raises(ImageMissing):
        store.put_manifest(WORKSPACE, "op-3", images.image_manifest(config, [layer], {}))


def test_a_manifest_belongs_to_its_repository(store: ImageStore) -> None:
    digest = put_image(store, WORKSPACE, "op-4", b"mine")
    with pytest.raises(ImageMissing):
        store.read_manifest(PROFILES, digest)
    with pytest.raises(ImageMissing):
        store.verify(WORKSPACE, "sha256:" + "0" * 64)


def test_a_deleted_image_is_gone_and_others_stay(store: ImageStore) -> None:
    gone, kept = (put_image(store, WORKSPACE, tag, tag.encode()) for tag in ("op-5", "op-6"))
    store.delete_manifest(WORKSPACE, gone)
    store.delete_manifest(WORKSPACE, gone)
    with pytest.raises(ImageMissing):
        store.read_image(WORKSPACE, gone)
    store.verify(WORKSPACE, kept)


def test_a_reader_that_stops_the_reading_back_is_obeyed(store: ImageStore) -> None:
    digest = put_image(store, WORKSPACE, "op-7", os.urandom(3_000_000))

    def stop(_read: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.verify(WORKSPACE, digest, stop)


def test_a_blob_under_a_digest_that_it_has_not_is_noticed(store: ImageStore) -> None:
    with pytest.raises(CorruptImage):
        with store.blob_writer(WORKSPACE) as blob:
            blob.write(b"content")
            blob.publish(sha256(b"another"))
        store.verify(WORKSPACE, put_image_of(store, sha256(b"another"), 7))


def put_image_of(store: ImageStore, digest: str, size: int) -> str:
    layer = LayerRecord(digest, digest, size, size)
    config = images.image_config([layer], created="now", architecture="amd64")
    store.put_blob(WORKSPACE, config)
    return store.put_manifest(WORKSPACE, "op-8", images.image_manifest(config, [layer], {}))
