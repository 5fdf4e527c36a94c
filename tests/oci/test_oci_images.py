from __future__ import annotations

import json

import pytest

from torpor_hub.errors import CorruptImage
from torpor_hub.oci import images
from torpor_hub.oci.images import LayerRecord

ONE = LayerRecord("sha256:" + "1" * 64, "sha256:" + "a" * 64, 100, 2000)
TWO = LayerRecord("sha256:" + "2" * 64, "sha256:" + "b" * 64, 50, 60)
CONFIG = images.image_config([ONE, TWO], created="2026-11-21T00:00:00Z", architecture="amd64")
MANIFEST = images.image_manifest(CONFIG, [ONE, TWO], {images.WORKSPACE: "ws-é", images.PARENT: ONE.digest})


def test_equal_inputs_give_equal_bytes_whatever_the_order() -> None:
    again = images.image_manifest(CONFIG, [ONE, TWO], {images.PARENT: ONE.digest, images.WORKSPACE: "ws-é"})
    assert again == MANIFEST
    assert images.canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


def test_an_image_reads_back_as_it_was_made() -> None:
    image = images.read_image(MANIFEST, CONFIG)
    assert image.layers == (ONE, TWO)
    assert image.config.digest == images.digest_of(CONFIG)
    assert image.annotations == {images.WORKSPACE: "ws-é", images.PARENT: ONE.digest}
    assert [blob.digest for blob in image.blobs] == [image.config.digest, ONE.digest, TWO.digest]


def test_a_configuration_carries_nothing_of_the_process() -> None:
    document = json.loads(CONFIG)
    assert document["config"] == {}
    assert set(document) == {"architecture", "os", "created", "config", "rootfs", "history"}
    assert document["rootfs"] == {"type": "layers", "diff_ids": [ONE.diff_id, TWO.diff_id]}
    assert len(document["history"]) == 2


def test_a_manifest_names_media_types_that_registries_know() -> None:
    document = json.loads(MANIFEST)
    assert document["schemaVersion"] == 2
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert document["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert [layer["mediaType"] for layer in document["layers"]] == ["application/vnd.oci.image.layer.v1.tar+zstd"] * 2


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b'{"config": {}, "layers": []}',
        MANIFEST.replace(b"sha256:222", b"sha256:../"),
        MANIFEST.replace(b'"size":50', b'"size":"x"'),
        images.image_manifest(CONFIG, [ONE], {}),
        images.image_manifest(b"{}", [ONE, TWO], {}),
    ],
)
def test_what_is_no_image_is_refused(manifest: bytes) -> None:
    with pytest.raises(CorruptImage):
        images.read_image(manifest, CONFIG)


def test_a_base_s_layers_keep_their_type_and_are_not_taken_for_our_own() -> None:
    gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    manifest = json.loads(MANIFEST)
    del manifest["layers"][0]["annotations"]
    manifest["layers"][0]["mediaType"] = gzip
    base, ours = images.read_image(json.dumps(manifest).encode(), CONFIG).layers
    assert (base.is_ours, ours.is_ours) == (False, True)
    assert base.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    written = json.loads(images.image_manifest(CONFIG, [base, ours], {}))["layers"]
    assert [layer["mediaType"] for layer in written] == [base.media_type, images.LAYER]
    assert ["annotations" in layer for layer in written] == [False, True]


def test_a_layer_over_a_base_changes_nothing_else_of_its_configuration() -> None:
    base = {**json.loads(CONFIG), "config": {"Entrypoint": ["/bin/lab"], "User": "1000"}, "author": "somebody"}
    extended = json.loads(images.extended_config(json.dumps(base).encode(), [TWO], created="2026-12-01T00:00:00Z"))
    assert extended.pop("rootfs")["diff_ids"] == [ONE.diff_id, TWO.diff_id, TWO.diff_id]
    assert len(extended.pop("history")) == 3
    assert extended.pop("created") == "2026-12-01T00:00:00Z"
    assert extended == {key: base[key] for key in base if key not in ("rootfs", "history", "created")}
