"""Image configurations and manifests as data: canonical JSON, digests, and what a manifest says (OCI image spec 1.1)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torpor_hub.errors import CorruptImage

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

OCI_OF_DOCKER = {
    "application/vnd.docker.container.image.v1+json": CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
}
"""A manifest with a zstd layer has to be OCI's throughout; the bytes are the same under either name."""

WORKSPACE = "org.torpor.workspace"
PARENT = "org.torpor.parent"
UNCOMPRESSED = "org.torpor.uncompressed-bytes"
CREATED = "org.opencontainers.image.created"
REF_NAME = "org.opencontainers.image.ref.name"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What identifies a layer: ``digest`` is of the compressed bytes, ``diff_id`` of the tar inside.

    ``uncompressed_bytes`` is zero where the manifest does not say: only layers of this library say it.
    """

    digest: str
    diff_id: str
    size_bytes: int
    uncompressed_bytes: int
    media_type: str = LAYER

    @property
    def is_ours(self) -> bool:
        """Whether this library wrote the layer; those of a base image it did not."""
        return self.uncompressed_bytes > 0


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob as an image names it."""

    media_type: str
    digest: str
    size_bytes: int

    def document(self, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the descriptor as JSON data."""
        plain: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}
        return plain | {"annotations": dict(annotations)} if annotations else plain


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and its configuration, read."""

    config: Descriptor
    layers: tuple[LayerRecord, ...]
    annotations: Mapping[str, str]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The blobs that must be there for the image to be whole."""
        return (self.config, *(Descriptor(layer.media_type, layer.digest, layer.size_bytes) for layer in self.layers))


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the one JSON form of ``document``: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(content: bytes) -> str:
    """Return ``sha256:…`` of ``content``."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def is_digest(text: str) -> bool:
    """Return whether ``text`` is a digest that this library writes and reads."""
    return DIGEST.fullmatch(text) is not None


def image_config(layers: Sequence[LayerRecord], *, created: str, architecture: str, system: str = "linux") -> bytes:
    """Return the configuration of an image of ``layers`` on an empty base.

    It carries no environment, labels or command, so that no secret of a process can get into an image. ``created`` is
    RFC 3339 and an input, so that equal inputs give equal bytes.
    """
    return canonical(
        {
            "architecture": architecture,
            "os": system,
            "created": created,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": created, "created_by": "torpor capture"} for _ in layers],
        }
    )


def extended_config(config: bytes, layers: Sequence[LayerRecord], *, created: str) -> bytes:
    """Return the configuration of an image with ``layers`` over the one that ``config`` is of; all else stays as it was.

    Raises:
        CorruptImage: ``config`` is not the configuration of an image.
    """
    document = _parsed(config, "configuration")
    try:
        below = list(document["rootfs"]["diff_ids"])
    except (KeyError, TypeError) as error:
        raise CorruptImage(f"the configuration {digest_of(config)} is not of an image: {error}") from error
    history = [{"created": created, "created_by": "torpor capture"} for _ in layers]
    rootfs = {"type": "layers", "diff_ids": [*below, *(layer.diff_id for layer in layers)]}
    return canonical(
        {**document, "created": created, "rootfs": rootfs, "history": [*document.get("history", []), *history]}
    )


def image_manifest(config: bytes, layers: Sequence[LayerRecord], annotations: Mapping[str, str]) -> bytes:
    """Return the manifest that ties ``config`` and ``layers`` together."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor(CONFIG, digest_of(config), len(config)).document(),
            "layers": [
                Descriptor(layer.media_type, layer.digest, layer.size_bytes).document(
                    {UNCOMPRESSED: str(layer.uncompressed_bytes)} if layer.is_ours else None
                )
                for layer in layers
            ],
            "annotations": dict(annotations),
        }
    )


def read_descriptors(manifest: bytes) -> tuple[Descriptor, ...]:
    """Return the blobs that a manifest names: the configuration first, then the layers in order.

    Raises:
        CorruptImage: this is not a manifest of an image.
    """
    document = _parsed(manifest, "manifest")
    try:
        return tuple(_descriptor(part) for part in [document["config"], *document["layers"]])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptImage(f"the manifest {digest_of(manifest)} is not an image manifest: {error}") from error


def read_image(manifest: bytes, config: bytes) -> Image:
    """Return what a manifest and its configuration say together.

    Raises:
        CorruptImage: one of them is not what it should be, or they do not belong together.
    """
    named, *blobs = read_descriptors(manifest)
    if named.digest != digest_of(config):
        raise CorruptImage(f"the configuration {named.digest} does not have its digest")
    try:
        document = _parsed(manifest, "manifest")
        diff_ids = _parsed(config, "configuration")["rootfs"]["diff_ids"]
        sizes = [int(layer.get("annotations", {}).get(UNCOMPRESSED, 0)) for layer in document["layers"]]
        layers = tuple(
            LayerRecord(blob.digest, _checked(diff_id), blob.size_bytes, size, blob.media_type)
            for blob, diff_id, size in zip(blobs, diff_ids, sizes, strict=True)
        )
        return Image(named, layers, dict(document.get("annotations", {})))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptImage(f"the image {digest_of(manifest)} cannot be read: {error}") from error


def _parsed(content: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise CorruptImage(f"the {what} {digest_of(content)} is not JSON") from error
    if not isinstance(document, dict):
        raise CorruptImage(f"the {what} {digest_of(content)} is not a JSON object")
    return document


def _descriptor(part: Mapping[str, Any]) -> Descriptor:
    media_type = str(part["mediaType"])
    return Descriptor(OCI_OF_DOCKER.get(media_type, media_type), _checked(part["digest"]), int(part["size"]))


def _checked(digest: str) -> str:
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is not a sha256 digest")
    return digest
