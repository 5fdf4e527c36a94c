"""A real registry with accounts, with a token server, and on a full disk."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.oci.test_image_stores import PROFILES, WORKSPACE, put_image
from tests.support import registry as registries
from torpor_hub.errors import RegistryFull, RegistryRefused
from torpor_hub.oci import images
from torpor_hub.oci.images import Descriptor
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not registries.is_installed(), reason="the program registry is not on the PATH"),
]

PASSWORD = "x"
HASHED = "$2b$04$w7cRy/psPkx8m424avGFV.m8AaXunGugp0YFFNn9nHpvMGdG1xPpG"
DISK_BYTES = 24 * 1024**2


def test_an_account_with_a_name_and_a_password(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(f"agent:{HASHED}\n")
    accounts = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registries.real(tmp_path / "registry", auth=accounts) as host:
        allowed = Registry(Address(host, insecure=True, username="agent", password=PASSWORD))
        allowed.verify(WORKSPACE, put_image(allowed, WORKSPACE, "op-1", os.urandom(9_000_000)))
        for address in (Address(host, insecure=True), Address(host, insecure=True, username="agent", password="wrong")):
            with pytest.raises(RegistryRefused, match="refuses"):
                Registry(address).put_blob(WORKSPACE, b"content")


class TokenServer:
    """Gives out tokens for what the account ``agent`` asks, and only reading to anybody else."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = _self_signed(self.key)
        self.bundle = folder / "token.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.lifetime_s = 300
        self.asked: list[list[str]] = []

    def token(self, query: dict[str, list[str]], authorization: str) -> str:
        self.asked.append(query.get("scope", []))
        known = authorization == "Basic " + base64.b64encode(f"agent:{PASSWORD}".encode()).decode()
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if known else ["pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": "test", "aud": "registry", "nbf": now - 5, "iat": now, "exp": now + self.lifetime_s}
        der = base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()
        return jwt.encode(
            {**claims, "sub": "agent", "jti": os.urandom(8).hex(), "access": access}, self.key, "RS256", {"x5c": [der]}
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = owner.token(parse_qs(urlsplit(self.path).query), self.headers.get("Authorization", ""))
                content = json.dumps({"token": text, "expires_in": owner.lifetime_s}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_token_for_each_repository(tmp_path: Path) -> None:
    tokens = TokenServer(tmp_path)
    with tokens.serving() as realm:
        accounts = {
            "token": {"realm": realm, "service": "registry", "issuer": "test", "rootcertbundle": str(tokens.bundle)}
        }
        with registries.real(tmp_path / "registry", auth=accounts) as host:
            allowed = Registry(Address(host, insecure=True, username="agent", password=PASSWORD))
            digest = put_image(allowed, PROFILES, "v1", os.urandom(9_000_000))
            layer = allowed.verify(PROFILES, digest).layers[0]
            allowed.borrow_blob(WORKSPACE, PROFILES, Descriptor(images.LAYER, layer.digest, layer.size_bytes))
            assert allowed.has_blob(WORKSPACE, layer.digest, layer.size_bytes)
            allowed.delete_manifest(PROFILES, digest)
            assert len(tokens.asked) <= 6, "tokens are kept"
            assert {PROFILES, WORKSPACE} in [{scope.split(":")[1] for scope in asked} for asked in tokens.asked]
            reader = Registry(Address(host, insecure=True))
            assert reader.has_blob(WORKSPACE, layer.digest, layer.size_bytes)
            with pytest.raises(RegistryRefused):
                reader.put_blob(WORKSPACE, b"content")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_said_to_be_full_and_is_not_filled_by_what_was_given_up(tmp_path: Path) -> None:
    disk = tmp_path / "registry"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", disk], check=True)
    try:
        with registries.real(disk) as host:
            with pytest.raises(RegistryFull, match=f"{host} has no space left"):
                Registry(Address(host, insecure=True)).put_blob(WORKSPACE, os.urandom(2 * DISK_BYTES))
            assert list(disk.rglob("_uploads/*/data")) == []
        # The program lets go of a file that it has removed only when it collects its own memory.
        with registries.real(disk) as host:
            registry = Registry(Address(host, insecure=True))
            registry.verify(WORKSPACE, put_image(registry, WORKSPACE, "op-1", os.urandom(DISK_BYTES // 2)))
    finally:
        subprocess.run(["umount", disk], check=True)


def _self_signed(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token server of a test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    dated = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    return dated.sign(key, hashes.SHA256())
