"""Who signs in: the platform decides, the hub asks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jupyterhub.auth import Authenticator
from tornado import web
from traitlets import Instance

from torpor_hub import errors
from torpor_hub.settings import Settings
from torpor_hub.spawning import handlers
from torpor_hub.spawning.platform import Platform


class TorporAuthenticator(Authenticator):  # type: ignore[misc] # jupyterhub has no types
    """Lets in whom the platform recognises by name and password."""

    settings = Instance(Settings, help="The settings of this installation.").tag(config=True)

    @functools.cached_property
    def platform(self) -> Platform:
        """The hub's one client of the platform's api."""
        return Platform(self.settings)

    async def authenticate(self, handler: web.RequestHandler, data: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the person's name and whether they are a platform admin; None where the platform refuses them.

        Raises:
            tornado.web.HTTPError: with a sentence for the sign-in page, when the platform cannot tell or not yet.
        """
        try:
            person = await self.platform.sign_in(data.get("username", ""), data.get("password", ""))
        except (errors.Unavailable, errors.TooManyAttempts) as error:
            self.log.warning("No sign-in: %s", error)
            raise web.HTTPError(error.status, f"{error.message} {error.next_step}".strip()) from error
        except errors.UserError as error:
            self.log.info("Sign-in refused: %s", error)
            return None
        return {"name": person.name, "admin": person.admin}

    def get_handlers(self, app: Any) -> list[tuple[str, type[web.RequestHandler]]]:
        """Return the sign-in page and the platform's own handlers, which come before the hub's of the same paths."""
        return [*handlers.OURS, *super().get_handlers(app)]
