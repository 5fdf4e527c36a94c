"""The api token of a workspace's server: derived, so that a hub that has lost its database finds a running server's again."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from jupyterhub import orm
from jupyterhub.utils import url_escape_path, url_path_join

KEY = "hub-server-token-key"


def derive(key: str, user: str, server: str, workspace_id: str, grant_id: str) -> str:
    """Return the token of one start of a workspace's server."""
    named = "\0".join((user, server, workspace_id, grant_id)).encode()
    return hmac.new(key.encode(), named, hashlib.sha256).hexdigest()


def register(spawner: Any, token: str) -> None:
    """Put ``token`` in place of the one that the hub has just made for ``spawner``, with its scopes, also as OAuth secret.

    JupyterHub does the like once the start has returned. By then the server has long used its token, and a hub that ends in
    between would never know it.
    """
    made = orm.APIToken.find(spawner.user.db, spawner.api_token)
    known = orm.APIToken.find(spawner.user.db, token)
    if known is None:
        # `generated`: it has the entropy of a made one, and needs no slow hash.
        spawner.user.new_api_token(token, generated=True, note=made.note, scopes=made.scopes)
    else:
        known.scopes = made.scopes
    callback = url_path_join(spawner.user.url, url_escape_path(spawner.name), "oauth_callback")
    spawner.user.settings["oauth_provider"].add_client(spawner.oauth_client_id, token, callback)
    spawner.api_token = token
    spawner.user.db.commit()
