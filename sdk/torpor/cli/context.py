"""What every command shares: which platform, how to show what it says, and when to ask first."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from torpor.client import Client

if TYPE_CHECKING:
    import httpx


class OutputFormat(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Output = Annotated[
    OutputFormat | None,
    typer.Option("--output", "-o", help="How to write data; by default a table on a terminal and JSON elsewhere."),
]
Env = Annotated[str | None, typer.Option("--env", help="A named environment of the configuration file.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Return when it is done.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")]


@dataclass
class Context:
    """The environment of this process as the commands see it. ``transport`` replaces the network (tests)."""

    env: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    transport: httpx.BaseTransport | None = None

    def client(self, env: str | None) -> Client:
        """Return a client of the environment that the command or the program named. Raises ConfigurationError."""
        return Client(env=env or self.env, environ=self.environ, transport=self.transport)


def of(ctx: typer.Context) -> Context:
    """Return the context of a command."""
    context = ctx.find_object(Context)
    return context if context is not None else Context()


def client_of(ctx: typer.Context, env: str | None) -> Client:
    """Return the client for a command. Raises ConfigurationError."""
    return of(ctx).client(env)


def allow_change(client: Client, *, yes: bool, question: str = "") -> None:
    """Ask before a change: always where there is a ``question``, and in an environment that is protected.

    Ends the command with code 1 when the answer is no, and with code 2 where nobody can be asked.
    """
    environment = client.settings.environment
    protected = environment is not None and environment.protected
    if yes or not (question or protected):
        return
    where = environment.name if environment is not None else client.settings.url.value
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"This changes {where} and nobody can be asked. Add --yes to go on.")
    if not typer.confirm(f"{question or 'Go on?'} ({where})", err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(1)
