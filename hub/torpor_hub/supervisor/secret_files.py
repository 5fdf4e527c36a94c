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


# What each protects: the proxy's control address; the hub's cookies; tokens that the api signs; credentials of sources at
# rest; the hub's services `torpor` and `supervisor`; the first word of hub, importer and agent to the api.
MAKERS: Mapping[str, Callable[[], str]] = {
    "proxy-token": _hex,
    "hub-cookie": _hex,
    "signing-key": _hex,
    "fernet-key": _fernet,
    "service-token": _hex,
    "supervisor-token": _hex,
    "proof-hub": _hex,
    "proof-importer": _hex,
    "proof-agent": _hex,
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
