"""``torpor workspaces``: see, start, put to sleep, wake, stop."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from torpor import units
from torpor.cli import output
from torpor.cli.context import Env, Output, OutputFormat, Timeout, Wait, Yes, allow_change, client_of
from torpor.models import Resource, WorkspaceStatus
from torpor.workspace_handle import Workspace

app = typer.Typer(help="Workspaces: see, start, put to sleep, wake, stop.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Name or id.")]
Here = Annotated[str | None, typer.Argument(help="Name or id; inside of a workspace, that one by default.")]


class Choice(StrEnum):
    """Which environment to start with."""

    CURRENT = "current"
    PREVIOUS = "previous"
    PROFILE = "profile"


def _row(resource: Resource) -> list[str]:
    status = WorkspaceStatus.parse(resource.status)
    since = f"{status.since:%Y-%m-%d %H:%M}" if status.since else ""
    return [resource.name, resource.tenant, str(resource.spec.get("profile", "")), status.phase, since]


def _details(resource: Resource) -> list[tuple[str, str]]:
    status = WorkspaceStatus.parse(resource.status)
    saved = status.checkpoint
    checkpoint = (
        f"{saved['created_at']}, {units.size(saved.get('size_bytes') or 0)}, {saved.get('digest', '')}" if saved else ""
    )
    progress = f"{status.progress} %" if status.progress is not None else ""
    known = [
        ("progress", progress),
        ("amount", units.amount(status.amount)),
        ("image", status.image),
        ("node", status.node),
        ("checkpoint", checkpoint),
        ("actions", ", ".join(status.actions)),
    ]
    return [*output.sentences(resource.status), *known]


VIEW = output.View(("name", "tenant", "profile", "phase", "since"), _row, lambda resource: resource.name, _details)


@app.command("list")
def list_(
    ctx: typer.Context,
    everyone: Annotated[bool, typer.Option("--all", help="Everyone's (platform admins).")] = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """List your workspaces."""
    found = client_of(ctx, env).workspaces(everyone=everyone)
    output.write_list([workspace.resource for workspace in found], VIEW, output_)


@app.command()
def show(ctx: typer.Context, name: Here = None, output_: Output = None, env: Env = None) -> None:
    """Show one workspace: where it is, why, and what makes sense now."""
    output.write_one(client_of(ctx, env).workspace(name).resource, VIEW, output_)


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The name, unique among your workspaces.")],
    tenant: Annotated[str | None, typer.Option(help="By default your first.")] = None,
    profile: Annotated[str | None, typer.Option(help="By default the platform's.")] = None,
    start_: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    yes: Yes = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Create a workspace."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    made = client.create_workspace(name, tenant=tenant, profile=profile, start=start_)
    output.write_one(made.resource, VIEW, output_)


@app.command()
def start(
    ctx: typer.Context,
    name: Name,
    environment: Annotated[
        Choice | None, typer.Option(help="What to start with; by default where it left off.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 600,
    yes: Yes = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Start a workspace, or wake it."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    workspace = client.workspace(name)
    workspace.start(environment)
    _finish(workspace, "running", wait, timeout, output_)


@app.command()
def wake(
    ctx: typer.Context,
    name: Name,
    wait: Wait = False,
    timeout: Timeout = 600,
    yes: Yes = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Wake a workspace with its environment unchanged."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    workspace = client.workspace(name)
    workspace.start()
    _finish(workspace, "running", wait, timeout, output_)


@app.command()
def sleep(
    ctx: typer.Context,
    name: Here = None,
    wait: Wait = False,
    timeout: Timeout = 600,
    yes: Yes = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Put a workspace to sleep: its environment is saved, what it holds goes back to the pool."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    workspace = client.workspace(name)
    workspace.sleep()
    _finish(workspace, "asleep", wait, timeout, output_)


@app.command()
def stop(
    ctx: typer.Context,
    name: Name,
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up what was installed since the last checkpoint.")
    ] = False,
    wait: Wait = False,
    timeout: Timeout = 600,
    yes: Yes = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Stop a workspace: with --discard without saving anything, which is all that a platform without a registry can do."""
    client = client_of(ctx, env)
    workspace = client.workspace(name)
    status = workspace.last_status
    discards = discard or ("stop_discard" in status.actions and "sleep" not in status.actions)
    question = status.confirmations.get("stop_discard", f"End {workspace.name} and discard what was installed?")
    allow_change(client, yes=yes, question=question if discards else "")
    workspace.stop(discard=discards)
    _finish(workspace, "stopped", wait, timeout, output_)


@app.command()
def delete(ctx: typer.Context, name: Name, yes: Yes = False, env: Env = None) -> None:
    """Delete a workspace with its environment and checkpoints; the home stays."""
    client = client_of(ctx, env)
    workspace = client.workspace(name)
    question = workspace.last_status.confirmations.get("delete", f"Delete {workspace.name}?")
    allow_change(client, yes=yes, question=question)
    workspace.delete()
    typer.echo(f"{workspace.name} is being deleted; its home stays.", err=True)


@app.command()
def logs(
    ctx: typer.Context,
    name: Here = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 200,
    env: Env = None,
) -> None:
    """Write the last lines of a workspace's server that failed or ended."""
    typer.echo(client_of(ctx, env).workspace(name).log(lines), nl=False)


def _finish(workspace: Workspace, desired: str, wait: bool, timeout_s: float, form: OutputFormat | None) -> None:
    if wait:
        with output.told() as say:
            workspace.wait(desired, timeout_s, seen=lambda status: say(_step(workspace.name, status)))
    output.write_one(workspace.resource, VIEW, form)


def _step(name: str, status: WorkspaceStatus) -> str:
    percent = f" {status.progress} %" if status.progress is not None else ""
    return f"{name}: {status.message or status.phase.lower()}{percent}"
