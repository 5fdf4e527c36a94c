"""The extension of jupyter-server: where the workspace is known from, and which routes it adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import environ

from jupyter_server.extension.application import ExtensionApp

from torpor_lab.handlers import ApiHandler, ConfigHandler
from torpor_lab.platform import Platform


@dataclass(frozen=True)
class WorkspaceConfig:
    """The workspace that this server belongs to. ``page`` is the path of its page on the platform, as the browser sees it."""

    workspace: str
    name: str
    tenant: str
    user: str
    page: str


def workspace_config(environment: Mapping[str, str]) -> WorkspaceConfig:
    """Return what the platform wrote into the environment; ``workspace`` is empty outside of the platform."""
    known = environment.get("TORPOR_URL") and environment.get("TORPOR_WORKSPACE")
    return WorkspaceConfig(
        workspace=environment["TORPOR_WORKSPACE"] if known else "",
        name=environment.get("TORPOR_WORKSPACE_NAME", ""),
        tenant=environment.get("TORPOR_TENANT", ""),
        user=environment.get("JUPYTERHUB_USER", ""),
        page=environment.get("TORPOR_PAGE", ""),
    )


class TorporLab(ExtensionApp):
    """Adds the proxy and tells the page which workspace it is in."""

    name = "torpor_lab"

    def initialize_settings(self) -> None:
        """Open the client and put the workspace into the page's configuration, so that the panel starts without a request."""
        config = asdict(workspace_config(environ))
        self.platform = Platform(environ.get("TORPOR_URL", ""), environ.get("JUPYTERHUB_API_TOKEN", ""))
        self.settings.update(torpor_platform=self.platform, torpor_config=config)
        self.settings.setdefault("page_config_data", {})["torpor"] = config

    def initialize_handlers(self) -> None:
        """Add the two routes below the server's base URL."""
        self.handlers.extend([(r"/torpor/config", ConfigHandler), (r"/torpor/api/(.*)", ApiHandler)])

    async def stop_extension(self) -> None:
        """Close the connections to the platform."""
        await self.platform.close()
