"""The proxy as a program: runs configurable-http-proxy, and has the hub give it its routes once it answers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import httpx

from torpor_hub.errors import StartupError
from torpor_hub.programs.starting import start
from torpor_hub.settings import Settings
from torpor_hub.supervisor.services import post_until_answered, proxy_arguments

LOG = logging.getLogger(__name__)
COMMAND = "configurable-http-proxy"
LOOK_AGAIN_S = 0.2


def main() -> None:
    """Run the proxy until SIGTERM or until it ends by itself, with its exit status."""
    sys.exit(start("torpor-proxy", "Routes people's requests.", run))


async def run(settings: Settings) -> int:
    """Run the proxy, and return its exit status.

    Raises:
        StartupError: when the proxy is not installed, or a secret is missing.
    """
    token, supervisor = settings.secret("proxy-auth-token"), settings.secret("hub-supervisor-token")
    environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": token}
    try:
        proxy = await asyncio.create_subprocess_exec(COMMAND, *proxy_arguments(settings), env=environment)
    except OSError as error:
        raise StartupError(f"{COMMAND} cannot be run: {error.strerror}.") from error
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, proxy.terminate)
    routes = asyncio.create_task(_restore_routes(settings, token, supervisor))
    try:
        return await proxy.wait()
    finally:
        routes.cancel()


async def _restore_routes(settings: Settings, token: str, supervisor: str) -> None:
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"token {token}"}) as client:
        while not await _answers(client, f"http://127.0.0.1:{settings.proxy_api.port}/api/routes"):
            await asyncio.sleep(LOOK_AGAIN_S)
    await post_until_answered(f"{settings.hub_api_url}/proxy", supervisor, LOG.error)


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
