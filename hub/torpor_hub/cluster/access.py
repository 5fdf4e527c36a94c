"""Where the API server is and how to prove who asks: a pod's service account, or a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from torpor_hub.errors import ClusterUnavailable, StartupError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT, CONFIG = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG"


@dataclass(frozen=True)
class Access:
    """An API server's address, how its certificate is checked, and what proves who asks.

    ``token_file`` is read at each request, because the kubelet renews it.
    """

    server: str
    tls: ssl.SSLContext
    token_text: str = ""
    token_file: Path | None = None

    def token(self) -> str:
        """Return the bearer token in force; empty where a client certificate proves who asks.

        Raises:
            ClusterUnavailable: when the token's file cannot be read.
        """
        if self.token_file is None:
            return self.token_text
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise ClusterUnavailable(
                f"The cluster's token {self.token_file} cannot be read: {error.strerror}."
            ) from error


def find(*, relax_x509: bool = False, variables: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> Access:
    """Return the access of this process: ``KUBECONFIG`` where it is set, else the pod's service account.

    ``relax_x509`` accepts a cluster's CA without the extensions that Python 3.13 asks for; certificates are still verified.

    Raises:
        StartupError: when there is neither, or it cannot be used.
    """
    if variables.get(CONFIG):
        return from_file(Path(variables[CONFIG]), relax_x509=relax_x509)
    if variables.get(HOST):
        host = variables[HOST]
        named = f"[{host}]" if ":" in host else host
        tls = _context(_read(account / "ca.crt"), relax_x509=relax_x509)
        return Access(f"https://{named}:{variables.get(PORT, '443')}", tls, token_file=account / "token")
    raise StartupError(
        f"No cluster is named: {CONFIG} is not set, and this is no pod with a service account. Set {CONFIG}."
    )


def from_file(file: Path, *, relax_x509: bool = False) -> Access:
    """Return the access that a kubeconfig's current context gives: a token, a token's file or a client certificate.

    Raises:
        StartupError: when it cannot be read, or needs a login program.
    """
    content = _parse(file)
    context = _named(content, "contexts", content.get("current-context", ""), file)["context"]
    cluster = _named(content, "clusters", context["cluster"], file)["cluster"]
    user = _named(content, "users", context["user"], file)["user"]
    if "exec" in user or "auth-provider" in user:
        raise StartupError(f"The user in {file} signs in by a program. Name a service account's token instead.")
    tls = _context(_data(cluster, "certificate-authority", file), relax_x509=relax_x509)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    certificate, key = _data(user, "client-certificate", file), _data(user, "client-key", file)
    if certificate and key:
        _load_certificate(tls, certificate + "\n" + key, file)
    token_file = file.parent / user["tokenFile"] if "tokenFile" in user else None
    return Access(cluster["server"].rstrip("/"), tls, user.get("token", ""), token_file)


def _context(authority: str, *, relax_x509: bool) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cadata=authority or None)
    except ssl.SSLError as error:
        raise StartupError(f"The cluster's CA certificate cannot be used: {error.reason}.") from error
    if relax_x509:
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


def _load_certificate(tls: ssl.SSLContext, chain: str, source: Path) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="torpor-", suffix=".pem") as file:  # made with mode 0600
        file.write(chain)
        file.flush()
        try:
            tls.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise StartupError(f"The client certificate in {source} cannot be used: {error.reason}.") from error


def _parse(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(_read(file))
    except yaml.YAMLError as error:
        raise StartupError(f"{file} is not well formed: {error}.") from error
    if not isinstance(content, dict):
        raise StartupError(f"{file} is no kubeconfig.")
    return content


def _named(content: Mapping[str, Any], section: str, name: str, file: Path) -> Any:
    for entry in content.get(section) or ():
        if entry.get("name") == name:
            return entry
    raise StartupError(f"{file} has no '{name}' among its {section}.")


def _data(entry: Mapping[str, Any], key: str, file: Path) -> str:
    """Return what a kubeconfig holds itself, in base64, or names as a file; empty where it has neither."""
    if f"{key}-data" in entry:
        try:
            return base64.b64decode(entry[f"{key}-data"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise StartupError(f"'{key}-data' in {file} is not base64 of text.") from error
    return _read(file.parent / entry[key]) if key in entry else ""


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise StartupError(f"{file} cannot be read: {error.strerror}.") from error
