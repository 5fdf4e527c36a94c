"""Generated secrets: made once, never overwritten, readable by their owner alone."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path


def _hex() -> str:
    return secrets.token_hex(32)


def _fernet() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


# What each protects: the proxy's control address; the hub's cookies and the tokens of its servers; the hub's services
# `torpor` and `supervisor`; tokens that the api signs; credentials of sources at rest; the first word of each program to the api.
MAKERS: Mapping[str, Callable[[], str]] = {
    "proxy-auth-token": _hex,
    "hub-cookie-secret": _hex,
    "hub-server-token-key": _hex,
    "hub-service-token": _hex,
    "hub-supervisor-token": _hex,
    "signing-key": _hex,
    "fernet-key": _fernet,
    "hub-proof": _hex,
    "importer-proof": _hex,
    "agent-proof": _hex,
    "demo-proof": _hex,
}


def make(state_dir: Path) -> list[str]:
    """Make every secret that is not there yet, as ``<state>/secrets/<name>``; return the names of the new ones."""
    folder = state_dir / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return [name for name, maker in MAKERS.items() if _make(folder / name, maker())]


def _make(file: Path, secret: str) -> bool:
    if file.exists():
        return False
    # Written beside and linked: a crash leaves a whole secret or none, and one that is there is never replaced.
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secret)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True
