"""``torpor env``: which platforms there are, which one a command means, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torpor import config
from torpor.cli import output
from torpor.cli.context import Env, Output, OutputFormat, of

if TYPE_CHECKING:
    import tomlkit

app = typer.Typer(help="Environments: which platform a command means.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="The name in the configuration file.")]
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


@app.command("list")
def list_(ctx: typer.Context, output_: Output = None) -> None:
    """List the environments of the configuration file."""
    file = config.load(config.config_path(of(ctx).environ))
    found = [_document(environment, file) for environment in file.environments.values()]
    match output.chosen(output_):
        case OutputFormat.TABLE:
            rows = [[str(one["name"]), str(one["url"]), *(_mark(one[key]) for key in FLAGS)] for one in found]
            output.write_table(("name", "address", "default", "token", "protected"), rows)
        case OutputFormat.NAME:
            typer.echo("".join(f"{one['name']}\n" for one in found), nl=False)
        case form:
            output.write_document(found, form)


@app.command()
def use(ctx: typer.Context, name: Name) -> None:
    """Make an environment the default."""
    path = config.config_path(of(ctx).environ)
    config.load(path).environment(name)
    document = read(path)
    document["default"] = name
    write(path, document)
    typer.echo(f"The default is now {name}.", err=True)


@app.command()
def show(
    ctx: typer.Context, name: Annotated[str | None, typer.Argument(help="By default the one in use.")] = None
) -> None:
    """Write the address that a command would use."""
    typer.echo(config.resolve(env=name or of(ctx).env, environ=of(ctx).environ).url.value)


@app.command()
def explain(ctx: typer.Context, env: Env = None) -> None:
    """Write which address and token a command would use, where they are from, and what was passed over."""
    typer.echo(config.resolve(env=env or of(ctx).env, environ=of(ctx).environ).explain())


FLAGS = ("default", "token", "protected")


def read(path: Path) -> tomlkit.TOMLDocument:
    """Return the configuration file for a change that keeps its comments; empty where there is none."""
    import tomlkit

    return tomlkit.parse(path.read_text()) if path.exists() else tomlkit.document()


def write(path: Path, document: Any) -> None:
    """Replace the configuration file."""
    import tomlkit

    write_private(path, tomlkit.dumps(document))


def write_private(path: Path, text: str) -> None:
    """Replace a file that nobody else may read, at once: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(PRIVATE_FILE)
    draft.write_text(text)
    draft.replace(path)


def _document(environment: config.Environment, file: config.UserFile) -> dict[str, str | bool]:
    return {
        "name": environment.name,
        "url": environment.url,
        "default": environment.name == file.default,
        "token": bool(environment.token()),
        "protected": environment.protected,
    }


def _mark(value: object) -> str:
    return "yes" if value else ""
