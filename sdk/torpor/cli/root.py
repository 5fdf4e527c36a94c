"""The application: its commands, and what happens to errors."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from torpor.cli import access, context, datasets, environments, exits, jobs, tenants, workspaces
from torpor.errors import TorporError


class Root(TyperGroup):
    """The outermost group: an error of the SDK ends the process with its sentence and its code, without a stack trace."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except TorporError as error:
            exits.tell(error)
            raise typer.Exit(exits.code_of(error)) from error


def application() -> typer.Typer:
    """Return the application with every command of this package."""
    app = typer.Typer(
        cls=Root,
        help="Workspaces, jobs and data of a Torpor platform.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(begin)
    app.add_typer(workspaces.app, name="workspaces")
    app.add_typer(jobs.app, name="jobs")
    app.add_typer(datasets.app, name="datasets")
    app.add_typer(tenants.app, name="tenants")
    app.add_typer(environments.app, name="env")
    app.command("login")(access.login)
    app.command("doctor")(access.doctor)
    return app


def begin(
    ctx: typer.Context,
    env: context.Env = None,
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Write the version and exit.")] = False,
) -> None:
    """Workspaces, jobs and data of a Torpor platform."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"torpor {version_of('torpor')}")
        raise typer.Exit
    ctx.obj = ctx.obj or context.Context()
    ctx.obj.env = env
