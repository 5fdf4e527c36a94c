"""The hub's handlers that behave differently here. The hub asks those of its authenticator first."""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.hub import ShutdownAPIHandler
from jupyterhub.apihandlers.users import UserAPIHandler, UserServerAPIHandler
from jupyterhub.handlers.base import UserUrlHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.user import User
from tornado import web

from torpor_hub import errors
from torpor_hub.domain import saving

NOT_A_PERSON = (
    "Nothing was stopped: in the hub only people put workspaces to sleep, and this request is a service's. Sign in and stop it,"
    " or wish `desired: asleep` by the platform's api."
)
STARTING = "The workspace is starting. Stop it once it runs."
HAS_SERVERS = "Workspaces of this user run. Put them to sleep first, or stop them."
OUTLIVE = "Workspaces outlive the hub here, and a hub that ends puts none to sleep. Shut it down without `servers`."
NO_SLEEP = f"{saving.NO_SLEEP.message} {saving.NO_SLEEP.next_step}"


class StopHandler(UserServerAPIHandler):  # type: ignore[misc] # jupyterhub has no types
    """Makes a person's stop the wish for a sleep. JupyterHub calls ``Spawner.stop`` for many other reasons too.

    The wish is recorded before the hub lets go of the server, which would run on without a route where it cannot be.
    """

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator] # jupyterhub has no types
    async def delete(self, user_name: str, server_name: str = "") -> None:
        """Stop a server, unless it is just starting: the platform carries on a start that the hub would break off."""
        user = self.find_user(user_name)
        if user is not None and server_name in user.spawners and user.spawners[server_name].pending == "spawn":
            raise web.HTTPError(409, STARTING)
        await super().delete(user_name, server_name)

    async def stop_single_user(self, user: Any, server_name: str = "") -> Any:
        """Stop a server as JupyterHub does; it comes here after it has checked the request."""
        spawner = user.spawners[server_name]
        if spawner.active and spawner.workspace_id:
            await self._wish(spawner)
            if not spawner.active or spawner.pending:
                # The sleep was as quick as that, and the hub has seen its end.
                return spawner._stop_future
        return await super().stop_single_user(user, server_name)

    async def _wish(self, spawner: Any) -> None:
        if not isinstance(self.current_user, User):
            raise web.HTTPError(409, NOT_A_PERSON)
        if not self.authenticator.settings.save_environments:
            raise web.HTTPError(409, NO_SLEEP)
        try:
            await spawner.platform.wish_asleep(spawner.workspace_id)
        except errors.UserError as error:
            raise web.HTTPError(error.status, f"{error.message} {error.next_step}") from error
        spawner.stop_asked = True


class UserHandler(UserAPIHandler):  # type: ignore[misc] # jupyterhub has no types
    """Keeps the hub from forgetting a person whose workspaces run."""

    @needs_scope("admin:users")  # type: ignore[untyped-decorator] # jupyterhub has no types
    async def delete(self, user_name: str) -> None:
        """Remove a user from the hub; the platform's records know them as before."""
        user = self.find_user(user_name)
        if user is not None and user.active:
            raise web.HTTPError(409, HAS_SERVERS)
        await super().delete(user_name)


class ShutdownHandler(ShutdownAPIHandler):  # type: ignore[misc] # jupyterhub has no types
    """Ends the hub, and never its servers with it."""

    @needs_scope("shutdown")  # type: ignore[untyped-decorator] # jupyterhub has no types
    async def post(self) -> None:
        """Shut the hub down."""
        if (self.get_json_body() or {}).get("servers"):
            raise web.HTTPError(409, OUTLIVE)
        await super().post()


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
    (r"/api/shutdown", ShutdownHandler),
    (r"/api/users/([^/]+)", UserHandler),
    (r"/api/users/([^/]+)/server", StopHandler),
    (r"/api/users/([^/]+)/servers/([^/]*)", StopHandler),
    (r"/user/(?P<user_name>[^/]+)(?P<user_path>/.*)?", NotRunningHandler),
]
