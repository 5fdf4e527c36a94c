"""The command ``torpor users``: for whoever can read the platform's secrets, on its own machine or in its server's pod."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

DEFAULT = Path("~/.local/share/torpor/torpor.toml")


def commands(app: typer.Typer) -> None:
    """Add the group ``users`` to the command line."""
    users = typer.Typer(help="The platform's users, for its admins, where the platform runs.", no_args_is_help=True)
    # With one command alone, typer would leave its name out.
    users.callback()(_group)
    users.command("reset")(reset)
    app.add_typer(users, name="users")


def reset(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    settings: Annotated[
        Path | None,
        typer.Option(help="The platform's settings file; by default TORPOR_SETTINGS, else that of `torpor up`."),
    ] = None,
) -> None:
    """Give a user a new password, and show it this once."""
    # Every `torpor` command may load this module; only this one needs the rest.
    from torpor_hub.errors import TorporError

    file = settings or Path(os.environ.get("TORPOR_SETTINGS") or DEFAULT.expanduser())
    try:
        password = _reset(file, name)
    except TorporError as error:
        print(f"torpor users reset: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(password)


def _group() -> None:
    """The platform's users, for its admins, where the platform runs."""


def _reset(file: Path, name: str) -> str:
    from torpor_hub.services.people import reset_password
    from torpor_hub.settings import load
    from torpor_hub.stores import migrations
    from torpor_hub.stores.base import Store

    store = Store(load(file).database)
    try:
        migrations.check(store.engine)
        with store.begin("torpor users reset") as tx:
            return reset_password(tx, name)
    finally:
        store.close()
