"""How a program finds its cluster: a kubeconfig, or the account of its pod. No cluster is asked."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from torpor_hub.cluster import access
from torpor_hub.errors import StartupError


@pytest.fixture(scope="module")
def pair() -> tuple[str, str]:
    """A certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a cluster")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.decode(), private.decode()


def write(folder: Path, user: dict[str, Any], authority: str) -> Path:
    data = base64.b64encode(authority.encode()).decode()
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k:6443/", "certificate-authority-data": data}}],
        "users": [{"name": "u", "user": user}],
    }
    file = folder / "config"
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_pod_finds_its_cluster_by_its_account(tmp_path: Path, pair: tuple[str, str]) -> None:
    (tmp_path / "ca.crt").write_text(pair[0])
    (tmp_path / "token").write_text("the-token\n")
    variables = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = access.find(variables=variables, account=tmp_path)
    assert found.server == "https://[fd00::1]:443"
    assert found.token() == "the-token"
    assert found.tls.verify_mode is ssl.CERT_REQUIRED


def test_a_kubeconfig_wins_over_the_account(tmp_path: Path, pair: tuple[str, str]) -> None:
    file = write(tmp_path, {"token": "mine"}, pair[0])
    found = access.find(variables={"KUBECONFIG": str(file), "KUBERNETES_SERVICE_HOST": "h"})
    assert (found.server, found.token()) == ("https://k:6443", "mine")


def test_a_client_certificate_is_taken_from_the_kubeconfig_itself_or_from_files(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    certificate, key = pair
    encoded = [base64.b64encode(part.encode()).decode() for part in pair]
    itself = {"client-certificate-data": encoded[0], "client-key-data": encoded[1]}
    assert access.from_file(write(tmp_path, itself, certificate)).token() == ""
    (tmp_path / "a.crt").write_text(certificate)
    (tmp_path / "a.key").write_text(key)
    files = {"client-certificate": "a.crt", "client-key": "a.key"}
    assert access.from_file(write(tmp_path, files, certificate)).token() == ""


def test_certificates_are_still_verified_where_their_form_is_not(tmp_path: Path, pair: tuple[str, str]) -> None:
    file = write(tmp_path, {"token": "mine"}, pair[0])
    relaxed = access.from_file(file, relax_x509=True).tls
    assert not relaxed.verify_flags & ssl.VERIFY_X509_STRICT
    assert relaxed.verify_mode is ssl.CERT_REQUIRED
    assert relaxed.check_hostname


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "signs in by a program": ({"exec": {"command": "login"}}, "signs in by a program"),
    "a file that is not there": ({"client-certificate": "no.crt", "client-key": "no.key"}, "no.crt cannot be read"),
    "no base64": ({"client-certificate-data": "%", "client-key-data": "%"}, "is not base64"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_kubeconfig_that_cannot_be_used_says_which_part(tmp_path: Path, pair: tuple[str, str], case: str) -> None:
    user, sentence = BROKEN[case]
    with pytest.raises(StartupError, match=sentence):
        access.from_file(write(tmp_path, user, pair[0]))


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("current-context: mine")
    with pytest.raises(StartupError, match="no 'mine' among its contexts"):
        access.from_file(file)


def test_without_a_cluster_the_remedy_is_named() -> None:
    with pytest.raises(StartupError, match="Set KUBECONFIG"):
        access.find(variables={})
    with pytest.raises(StartupError, match="/nowhere cannot be read"):
        access.find(variables={"KUBECONFIG": "/nowhere"})
