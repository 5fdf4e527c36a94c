"""The command ``torpor up``: the whole platform on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def commands(app: typer.Typer) -> None:
    """Add the commands that need the platform's own packages to the command line."""
    app.command("up")(up)


def up(
    state: Annotated[
        Path | None, typer.Option(help="Folder for all that the platform remembers; by default ~/.local/share/torpor.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at; by default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen at; by default 8000.")] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Address that people use, where it is another one: https://example.org/torpor/")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Path below which everything is served: /torpor/")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="A TOML file with settings of your own, for this start.")
    ] = None,
    demo_data: Annotated[bool, typer.Option(help="Register the flights of New York in 2013 as an example.")] = True,
) -> None:
    """Start the platform and keep it running until Ctrl-C."""
    # Every `torpor` command loads this module; only this one needs the rest.
    from torpor_hub.errors import TorporError
    from torpor_hub.programs.embedded_platform import run
    from torpor_hub.supervisor.settings_file import Options

    try:
        run(Options(state, host, port, public_url, prefix), own_file=settings, demo_data=demo_data)
    except TorporError as error:
        print(f"torpor up: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
