"""Images of profiles in a real registry that lets nobody in without an account: the pull secrets' accounts open it."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.controllers.test_profiles import COPY, SOURCE, World, own, put_image_by
from tests.oci.test_registry_accounts import HASHED, PASSWORD
from tests.support import registry as registries
from tests.support.registry import FakeRegistry
from torpor_hub.controllers.profiles import ProfileController
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address
from torpor_hub.programs.control_cluster import reach_of
from torpor_hub.stores.base import Store

__all__ = ["own"]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not registries.is_installed(), reason="the program registry is not on the PATH"),
]
READER = "reader"


class PrivateWorld(World):
    """A profile whose image is in a registry with accounts, and the folder into which the cluster writes pull secrets."""

    def __init__(self, folder: Path, store: Store, own: FakeRegistry, host: str) -> None:
        super().__init__(folder, store, own, own, f"{host}/{SOURCE}:1")
        self.host = host
        self.controller = ProfileController(
            store, self.settings, self.registry, self.lead, reach=reach_of(self.settings)
        )
        self.secrets = self.settings.secrets_folder / "pull-secrets"
        self.secrets.mkdir(parents=True)

    def write_secret(self, file: str, registry: str, password: str) -> None:
        accounts = {"auths": {registry: {"username": READER, "password": password}}}
        (self.secrets / file).write_text(json.dumps(accounts))


@pytest.fixture
def world(tmp_path: Path, store: Store, own: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateWorld]:
    (tmp_path / "htpasswd").write_text(f"{READER}:{HASHED}\n")
    accounts = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    tls = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", tls["certificate"])
    with registries.real(tmp_path / "registry", tls, auth=accounts) as host:
        made = PrivateWorld(tmp_path, store, own, host)
        yield made
        made.registry.close()


def certificate(folder: Path) -> dict[str, str]:
    """Make a certificate for this machine; return its file and that of its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    files = {"certificate": folder / "tls.pem", "key": folder / "tls.key"}
    files["certificate"].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files["key"].write_bytes(key.private_bytes(*form))
    return {use: str(file) for use, file in files.items()}


def push(world: PrivateWorld) -> str:
    """Put the image into the private registry and return its digest."""
    client = Registry(Address(world.host, username=READER, password=PASSWORD))
    digest = put_image_by(client)
    client.close()
    return digest


def test_without_an_account_the_profile_says_where_one_belongs(world: PrivateWorld) -> None:
    push(world)
    world.write_secret("00-partner", "partner.example", PASSWORD)
    world.look()
    problem = world.profile().problem
    assert f"The registry {world.host} refuses a caller without an account" in problem
    assert f"have the pull secrets that `images.pullSecrets` names hold an account for {world.host}." in problem
    assert not world.own.manifests


def test_with_the_account_the_image_is_copied_and_a_new_password_counts_at_the_next_look(world: PrivateWorld) -> None:
    digest = push(world)
    world.write_secret("00-team", f"https://{world.host}", "an-old-one")
    world.look()
    problem = world.profile().problem
    assert f"The registry {world.host} refuses the account '{READER}'" in problem
    assert "check name, password and rights in the pull secrets that `images.pullSecrets` names." in problem
    assert "an-old-one" not in problem
    world.write_secret("00-team", f"https://{world.host}", PASSWORD)
    world.look()
    assert (world.profile().digest, world.profile().problem) == (digest, "")
    assert (COPY, digest) in world.own.manifests


def test_the_account_of_the_images_path_is_taken_and_of_two_secrets_the_first(world: PrivateWorld) -> None:
    digest = push(world)
    world.write_secret("00-registry", world.host, "for-others")
    world.write_secret("01-team", f"{world.host}/team", PASSWORD)
    world.write_secret("02-old", f"https://{world.host}/team", "an-old-one")
    world.look()
    assert (world.profile().digest, world.profile().problem) == (digest, "")


def test_a_pull_secret_that_is_none_is_named(world: PrivateWorld) -> None:
    (world.secrets / "00-team").write_text("password")
    world.look()
    assert "The pull secret team of `images.pullSecrets` is no docker config" in world.profile().problem
