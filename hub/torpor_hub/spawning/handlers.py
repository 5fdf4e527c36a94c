"""The hub's handlers that behave differently here. The hub asks those of its authenticator first."""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.users import UserServerAPIHandler
from jupyterhub.handlers.base import UserUrlHandler
from jupyterhub.user import User
from tornado import web

from torpor_hub.domain import saving


class StopHandler(UserServerAPIHandler):  # type: ignore[misc] # jupyterhub has no types
    """Tells the spawner when a person asked for a stop: JupyterHub calls ``Spawner.stop`` for many other reasons too.

    A stop is a sleep; where none can be, it is refused before the hub lets go of a server that runs on.
    """

    async def stop_single_user(self, user: Any, server_name: str = "") -> Any:
        """Stop a server as JupyterHub does; it comes here after it has checked the request."""
        spawner = user.spawners[server_name]
        asked = isinstance(self.current_user, User) and not spawner.pending
        if asked and spawner.active and not self.authenticator.settings.save_environments:
            raise web.HTTPError(409, f"{saving.NO_SLEEP.message} {saving.NO_SLEEP.next_step}")
        spawner.stop_asked = asked
        return await super().stop_single_user(user, server_name)


class NotRunningHandler(UserUrlHandler):  # type: ignore[misc] # jupyterhub has no types
    """Sends a visitor of a server that does not run to the platform's page, which says why and how to wake it."""

    def render_template(self, name: str, sync: bool = False, **values: Any) -> Any:
        """Return a rendered page; in place of the hub's page for such a server, redirect."""
        if name != "not_running.html":
            return super().render_template(name, sync, **values)
        workspace_id = values["user"].spawners[values["server_name"]].workspace_id
        page = f"workspaces/{workspace_id}" if workspace_id else ""
        self.redirect(self.authenticator.settings.service_path + page, status=303)
        raise web.Finish


OURS: list[tuple[str, type[web.RequestHandler]]] = [
    (r"/api/users/([^/]+)/server", StopHandler),
    (r"/api/users/([^/]+)/servers/([^/]*)", StopHandler),
    (r"/user/(?P<user_name>[^/]+)(?P<user_path>/.*)?", NotRunningHandler),
]
