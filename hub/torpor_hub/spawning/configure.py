"""The hub's whole configuration, from the platform's settings."""

from __future__ import annotations

import hashlib
from typing import Any

import aiohttp

from torpor_hub.settings import Settings
from torpor_hub.spawning.authentication import TorporAuthenticator

ACCESS = "access:services!service=torpor"
READ = "custom:torpor:read"
WRITE = "custom:torpor:write"
AN_HOUR_S = 3600
INTERNAL_CALL_S = 5
POLL_S = 2
ACTIVITY_S = 60
ANSWER_WITHIN_S = 1


def configure(c: Any, settings: Settings, spawner: str) -> None:
    """Set everything that the hub is told, in ``c``, JupyterHub's configuration object.

    ``spawner`` names the class that starts servers; the hub imports it, and so nothing that another one needs.

    Raises:
        StartupError: when a secret is missing.
    """
    _addresses(c, settings)
    _people(c, settings)
    _servers(c, spawner)
    _services(c, settings)
    _roles(c)


def _addresses(c: Any, settings: Settings) -> None:
    c.JupyterHub.bind_url = f"{settings.proxy.url}{settings.base_path}"
    c.JupyterHub.hub_bind_url = f"http://{settings.hub.host}:{settings.hub.port}"
    # What the proxy and the servers use.
    c.JupyterHub.hub_connect_url = settings.hub.url
    if settings.public_url.startswith("https:"):
        # What ends TLS in front may not say so: cookies are for TLS alone all the same. By plain HTTP any address leads here.
        c.JupyterHub.public_url = settings.public_url
    c.JupyterHub.default_url = settings.service_path
    c.JupyterHub.db_url = f"sqlite:///{settings.state_dir / 'jupyterhub.sqlite'}"
    c.JupyterHub.upgrade_db = True
    c.JupyterHub.cookie_secret = hashlib.sha256(settings.secret("hub-cookie-secret").encode()).digest()
    # The supervisor owns the proxy, and everything that runs outlives the hub.
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = settings.proxy_api.url
    c.ConfigurableHTTPProxy.auth_token = settings.secret("proxy-auth-token")
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    # A server that hangs must neither hold up the start of the hub nor one of its calls.
    c.JupyterHub.init_spawners_timeout = 1
    c.JupyterHubHTTPClient.session_options = {"timeout": aiohttp.ClientTimeout(total=INTERNAL_CALL_S)}
    c.JupyterHub.last_activity_interval = ACTIVITY_S


def _people(c: Any, settings: Settings) -> None:
    c.JupyterHub.authenticator_class = TorporAuthenticator
    c.TorporAuthenticator.settings = settings
    c.TorporAuthenticator.allow_all = True  # whom the platform recognises; it alone knows who exists


def _servers(c: Any, spawner: str) -> None:
    c.JupyterHub.spawner_class = spawner
    c.JupyterHub.allow_named_servers = True
    # How many, and how many at once, is for the platform to decide.
    c.JupyterHub.named_server_limit_per_user = 0
    c.JupyterHub.concurrent_spawn_limit = 0
    c.JupyterHub.active_server_limit = 0
    # A request gets a quick verdict; what takes longer is followed on the page of its progress.
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": ANSWER_WITHIN_S, "slow_stop_timeout": ANSWER_WITHIN_S}
    # The platform's verdict and the process itself end a bad start.
    c.Spawner.start_timeout = AN_HOUR_S
    c.Spawner.http_timeout = AN_HOUR_S
    c.Spawner.poll_interval = POLL_S
    c.Spawner.default_url = "/lab"
    # What a server may do: what its user's notebooks ask of the platform, and nothing of the hub beyond its own activity.
    c.Spawner.server_token_scopes = ["users:activity!user", "access:servers!server", ACCESS, READ, WRITE]


def _services(c: Any, settings: Settings) -> None:
    c.JupyterHub.services = [
        {
            "name": "torpor",
            "url": settings.server.url,
            "api_token": settings.secret("hub-service-token"),
            "oauth_client_id": "service-torpor",
            "oauth_redirect_uri": f"{settings.service_path}oauth_callback",
            "oauth_no_confirm": True,
            "oauth_client_allowed_scopes": [READ, WRITE],
        },
        {"name": "supervisor", "api_token": settings.secret("hub-supervisor-token")},
    ]


def _roles(c: Any) -> None:
    c.JupyterHub.custom_scopes = {
        READ: {"description": "See what one may see on the platform"},
        WRITE: {"description": "Change what one may change on the platform", "subscopes": [READ]},
    }
    c.JupyterHub.load_roles = [
        {"name": "user", "scopes": ["self", ACCESS, READ, WRITE]},
        # Wake (start), take a deleted workspace's server off the hub (delete), and know which servers the hub knows.
        {"name": "torpor-service", "services": ["torpor"], "scopes": ["list:users", "servers"]},
        # Tell the hub that the proxy has started anew.
        {"name": "supervisor", "services": ["supervisor"], "scopes": ["proxy"]},
    ]
