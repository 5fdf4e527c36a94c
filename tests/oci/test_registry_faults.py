"""A registry that breaks off, fills up, forgets and lies: what the client does, and what is left in the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from tests.oci.test_image_stores import PROFILES, WORKSPACE, put_image
from tests.support import registry as registries
from tests.support.registry import FakeRegistry
from torpor_hub.errors import CorruptImage, ImageMissing, RegistryFull, RegistryRefused, RegistryUnavailable
from torpor_hub.oci import images, transport, uploads
from torpor_hub.oci.images import Descriptor
from torpor_hub.oci.registry import WHOLE_BYTES, Registry, copy_image
from torpor_hub.oci.registry_auth import Address, parse_challenge

LARGE = os.urandom(WHOLE_BYTES + 1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setattr(transport, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 100_000)
    with registries.fake() as registry:
        yield registry


@pytest.fixture
def registry(fake: FakeRegistry) -> Iterator[Registry]:
    client = Registry(Address(fake.host, insecure=True))
    yield client
    client.close()


def send(registry: Registry, content: bytes, *, piece: int = 30_000) -> str:
    digest = images.digest_of(content)
    with registry.blob_writer(WORKSPACE) as blob:
        for start in range(0, len(content), piece):
            blob.write(content[start : start + piece])
        blob.publish(digest)
    return digest


@pytest.mark.parametrize("cuts", [1, 2])
def test_an_upload_goes_on_where_its_connection_was_cut(fake: FakeRegistry, registry: Registry, cuts: int) -> None:
    content = os.urandom(450_000)
    with registry.blob_writer(WORKSPACE) as blob:
        blob.write(content[:250_000])
        fake.faults.cut_patches = cuts
        blob.write(content[250_000:])
        blob.publish(images.digest_of(content))
    assert fake.blobs[WORKSPACE, images.digest_of(content)] == content
    assert fake.uploads == {}


def test_an_upload_cut_in_its_first_chunk_begins_anew_and_leaves_nothing(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.faults.cut_patches = 1
    content = os.urandom(250_000)
    assert fake.blobs[WORKSPACE, send(registry, content)] == content
    assert fake.uploads == {}


@pytest.mark.parametrize("size", [10, 250_000])
def test_an_answer_lost_after_the_last_byte_is_no_failure(fake: FakeRegistry, registry: Registry, size: int) -> None:
    fake.faults.cut_commits = 1
    content = os.urandom(size)
    assert fake.blobs[WORKSPACE, send(registry, content)] == content


def test_a_session_that_the_registry_has_lost_is_said_to_be_lost(fake: FakeRegistry, registry: Registry) -> None:
    with pytest.raises(RegistryUnavailable, match="has lost an upload"), registry.blob_writer(WORKSPACE) as blob:
        blob.write(os.urandom(150_000))
        blob.write(os.urandom(150_000))
        fake.faults.loses_sessions, fake.faults.cut_patches = True, 1
        for _ in range(3):
            blob.write(os.urandom(150_000))


def test_a_full_registry_is_named_and_gets_its_space_back(fake: FakeRegistry, registry: Registry) -> None:
    full = pytest.raises(RegistryFull, match=f"{fake.host} has no space left.*collect its garbage")
    with full, registry.blob_writer(WORKSPACE) as blob:
        blob.write(os.urandom(150_000))
        fake.faults.full = True
        for _ in range(3):
            blob.write(os.urandom(150_000))
    assert fake.uploads == {}


def test_a_registry_that_is_busy_is_asked_again(fake: FakeRegistry, registry: Registry) -> None:
    digest = put_image(registry, WORKSPACE, "op-1", b"content")
    fake.faults.busy = 2
    assert registry.verify(WORKSPACE, digest)
    fake.faults.busy = 3
    with pytest.raises(RegistryUnavailable, match="503"):
        registry.read_manifest(WORKSPACE, digest)


def test_a_registry_that_keeps_silent_is_not_waited_for_again_and_again(
    fake: FakeRegistry, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PATIENCE_S", -1.0)
    fake.faults.busy = 1
    with pytest.raises(RegistryUnavailable, match="503"):
        registry.read_manifest(WORKSPACE, "sha256:" + "0" * 64)


def test_a_registry_that_is_gone_is_named_with_the_next_step(fake: FakeRegistry) -> None:
    gone = Registry(Address("127.0.0.1:9", insecure=True))
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:9 does not answer.*try again"):
        gone.put_blob(WORKSPACE, b"content")
    gone.close()


def test_a_mount_that_is_not_done_becomes_a_copy(fake: FakeRegistry, registry: Registry) -> None:
    fake.blobs[PROFILES, images.digest_of(LARGE)] = LARGE
    fake.faults.refuses_mounts = True
    registry.borrow_blob(WORKSPACE, PROFILES, Descriptor(images.LAYER, images.digest_of(LARGE), len(LARGE)))
    assert fake.blobs[WORKSPACE, images.digest_of(LARGE)] == LARGE
    assert fake.uploads == {}


def test_a_mount_of_what_is_not_there_leaves_no_session(fake: FakeRegistry, registry: Registry) -> None:
    with pytest.raises(ImageMissing):
        registry.borrow_blob(WORKSPACE, PROFILES, Descriptor(images.LAYER, "sha256:" + "0" * 64, 9))
    assert fake.uploads == {}


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_a_registry_that_says_it_has_what_it_lost_is_found_out(
    fake: FakeRegistry, registry: Registry, content: bytes
) -> None:
    digest = put_image(registry, WORKSPACE, "op-1", content)
    lost = registry.read_image(WORKSPACE, digest).layers[0].digest
    fake.faults.lies_about = {lost}
    assert registry.has_blob(WORKSPACE, lost, len(content))
    with pytest.raises(ImageMissing, match=lost):
        registry.verify(WORKSPACE, digest)
    fake.faults.lies_about, fake.faults.breaks_off = set(), {lost}
    with pytest.raises(CorruptImage, match=f"{lost}.*breaks off"):
        registry.verify(WORKSPACE, digest)


def test_rot_in_a_small_blob_and_in_a_manifest_is_found(fake: FakeRegistry, registry: Registry) -> None:
    digest = put_image(registry, WORKSPACE, "op-1", b"small")
    image = registry.verify(WORKSPACE, digest)
    for rotten in (image.layers[0].digest, image.config.digest, digest):
        fake.faults.rots = {rotten}
        with pytest.raises(CorruptImage, match=rotten):
            registry.verify(WORKSPACE, digest)


def test_a_large_blob_that_was_cut_is_found(fake: FakeRegistry, registry: Registry) -> None:
    digest = put_image(registry, WORKSPACE, "op-1", LARGE)
    fake.blobs[WORKSPACE, images.digest_of(LARGE)] = LARGE[:-1]
    with pytest.raises(CorruptImage, match=f"has {len(LARGE) - 1} of {len(LARGE)} bytes"):
        registry.verify(WORKSPACE, digest)


def test_a_token_is_fetched_and_sent_with_uploads_too(fake: FakeRegistry) -> None:
    fake.faults.token = "first"
    registry = Registry(Address(fake.host, insecure=True, username="agent", password="secret"))
    content = os.urandom(250_000)
    with registry.blob_writer(WORKSPACE) as blob:
        blob.write(content[:100_000])
        blob.write(content[100_000:200_000])
        fake.faults.token = "second, because the first has ended in the middle"
        blob.write(content[200_000:])
        blob.publish(images.digest_of(content))
    assert fake.blobs[WORKSPACE, images.digest_of(content)] == content
    assert [path for path in fake.asked if path.startswith("GET /token")] == ["GET /token"] * 2
    registry.close()


def test_an_account_that_is_refused_is_named_without_its_password(fake: FakeRegistry) -> None:
    fake.faults.token, fake.faults.issued = "demanded", "given"
    registry = Registry(Address(fake.host, insecure=True, username="agent", password="hunter2"))
    with pytest.raises(RegistryRefused, match="refuses the account 'agent' for repository:") as caught:
        registry.put_blob(WORKSPACE, b"content")
    assert "hunter2" not in str(caught.value) + repr(Address("host", username="agent", password="hunter2"))
    registry.close()


def test_a_password_is_never_sent_in_plain_text_to_where_a_registry_points() -> None:
    scheme, parameters = parse_challenge(
        'Bearer realm="http://evil/token",service="a, \\"b\\"",scope="repository:x:pull"'
    )
    assert (scheme, parameters["realm"], parameters["service"]) == ("bearer", "http://evil/token", 'a, "b"')
    challenge = 'Bearer realm="http://evil/token"'
    answers = httpx.MockTransport(lambda _request: httpx.Response(401, headers={"WWW-Authenticate": challenge}))
    registry = Registry(Address("registry.example", username="agent", password="secret"), transport=answers)
    with pytest.raises(RegistryRefused, match="plain text"):
        registry.put_blob(WORKSPACE, b"content")


def test_an_image_is_copied_between_repositories_and_registries(fake: FakeRegistry, registry: Registry) -> None:
    digest = put_image(registry, PROFILES, "v1", LARGE)
    assert copy_image(registry, PROFILES, "v1", registry, WORKSPACE, "here") == digest
    registry.verify(WORKSPACE, digest)
    with registries.fake() as elsewhere:
        target = Registry(Address(elsewhere.host, insecure=True))
        assert copy_image(registry, PROFILES, digest, target, PROFILES, "v1") == digest
        target.verify(PROFILES, digest)
        assert copy_image(registry, PROFILES, "v1", target, PROFILES, "v2") == digest
        assert elsewhere.tags[PROFILES, "v2"] == digest
        target.close()
    with pytest.raises(ImageMissing, match="no image v9"):
        copy_image(registry, PROFILES, "v9", registry, WORKSPACE, "here")


def test_of_an_index_the_image_for_this_machine_is_meant(fake: FakeRegistry, registry: Registry) -> None:
    digest = put_image(registry, PROFILES, "v1", b"content")
    index = {
        "schemaVersion": 2,
        "mediaType": images.INDEX,
        "manifests": [
            {"digest": "sha256:" + "1" * 64, "platform": {"os": "linux", "architecture": "s390x"}},
            {"digest": digest, "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": digest, "platform": {"os": "linux", "architecture": "arm64"}},
        ],
    }
    content = images.canonical(index)
    fake.manifests[PROFILES, images.digest_of(content)] = content
    fake.tags[PROFILES, "all"] = images.digest_of(content)
    assert registry.resolve(PROFILES, "all") == digest
