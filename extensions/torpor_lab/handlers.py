"""The routes of the extension: who may ask, what is let through, how an answer is handed on."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from jupyter_server.base.handlers import APIHandler
from tornado.web import authenticated

from torpor_lab.platform import Answer, Platform, problem, target

MAX_REQUEST_BYTES = 1024 * 1024


class ConfigHandler(APIHandler):
    """Which workspace this server belongs to."""

    _track_activity = False

    @authenticated
    def get(self) -> None:
        """Answer the workspace's id, name, tenant, user and page."""
        self.finish(json.dumps(self.settings["torpor_config"]))


class ApiHandler(APIHandler):
    """Hands a request on to the platform with the server's token. Watching the panel is not activity of the workspace."""

    _track_activity = False

    @authenticated
    async def get(self, path: str) -> None:
        """Answer what the platform answers."""
        await self._hand_on(path)

    @authenticated
    async def post(self, path: str) -> None:
        """Answer what the platform answers."""
        await self._hand_on(path)

    @authenticated
    async def patch(self, path: str) -> None:
        """Answer what the platform answers."""
        await self._hand_on(path)

    @authenticated
    async def delete(self, path: str) -> None:
        """Answer what the platform answers."""
        await self._hand_on(path)

    async def _hand_on(self, path: str) -> None:
        platform: Platform = self.settings["torpor_platform"]
        method, body = str(self.request.method), self.request.body
        to = target(path, self.request.query)
        if to is None:
            self._reply(problem(HTTPStatus.NOT_FOUND, "not_found", "JupyterLab does not pass this path on."))
        elif len(body) > MAX_REQUEST_BYTES:
            limit = f"JupyterLab passes on at most {MAX_REQUEST_BYTES // 1024**2} MiB at once."
            step = "Use the `torpor` package in a notebook, which speaks to the platform directly."
            self._reply(problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", limit, step))
        else:
            self._reply(await platform.ask(method, to, dict(self.request.headers.get_all()), body))

    def _reply(self, answer: Answer) -> None:
        self.set_status(answer.status)
        self.set_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers.items():
            self.set_header(name, value)
        content_type = answer.headers.get("Content-Type", "application/json")
        if answer.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.finish(set_content_type=content_type)
        else:
            self.finish(answer.body, set_content_type=content_type)

    def compute_etag(self) -> Any:
        """Return the platform's ETag, or one of the body's own where the platform gives none (lists)."""
        return self._headers.get("ETag") or super().compute_etag()
