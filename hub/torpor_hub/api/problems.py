"""Errors as RFC 9457 problems, and the request boundary."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from torpor_hub.errors import UserError

LOG = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


def problem(request: Request, status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    """Return a problem document; ``more`` may hold pointer, next_step and parts."""
    content = {
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "pointer": more.get("pointer", ""),
        "next_step": more.get("next_step", ""),
        "request_id": getattr(request.state, "request_id", ""),
        "parts": more.get("parts", {}),
    }
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of a request with a problem."""

    @app.exception_handler(UserError)
    async def _user_error(request: Request, error: UserError) -> JSONResponse:
        more = {"pointer": error.pointer, "next_step": error.next_step, "parts": error.parts}
        return problem(request, error.status, error.code, error.message, **more)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part != "body"]
        return problem(
            request,
            422,
            "invalid_request",
            f"{'.'.join(place) or 'The body'}: {first['msg']}.",
            pointer="/" + "/".join(place),
            next_step="Correct the field and send the request again.",
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return problem(request, error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    async def _internal(request: Request, error: Exception) -> JSONResponse:
        request_id = getattr(request.state, "request_id", "")
        LOG.error("request %s %s failed, id %s", request.method, request.url.path, request_id, exc_info=error)
        return problem(
            request,
            500,
            "internal_error",
            f"Internal error, id {request_id}.",
            next_step="Try again; if it stays, give this id to a platform admin.",
        )
