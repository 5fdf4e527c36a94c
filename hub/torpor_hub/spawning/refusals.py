"""Refusals to start a server, as JupyterHub shows them: on its error page, in the progress and in its api."""

from __future__ import annotations

from html import escape

from jupyterhub.spawner import SpawnException

from torpor_hub.errors import UserError


def refused(message: str, next_step: str = "", *, reason: str, status: int = 400, log: str = "") -> SpawnException:
    """Return what to raise: a sentence, the next step, and the last lines of a log where there is one."""
    error = SpawnException(" ".join(filter(None, (message, next_step))), reason=reason, status_code=status)
    parts = [f"<p>{escape(part)}</p>" for part in (message, next_step) if part]
    if log:
        parts.append(f"<pre>{escape(log)}</pre>")
    # The pages take these; without them the progress would show the exception's representation.
    error.jupyterhub_message = "\n".join(filter(None, (error.message, log)))
    error.jupyterhub_html_message = error.message_html = "".join(parts)
    return error


def refused_by(error: UserError) -> SpawnException:
    """Return the platform's refusal as JupyterHub's."""
    return refused(error.message, error.next_step, reason=error.code, status=error.status)
