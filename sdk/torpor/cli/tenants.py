"""``torpor tenants``: limits, and what is held of them."""

from __future__ import annotations

from typing import Annotated

import typer

from torpor import units
from torpor.cli import output
from torpor.cli.context import Env, Output, client_of
from torpor.models import Resource

app = typer.Typer(help="Tenants: limits, and what is held.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Its name.")]
HEADINGS = ("name", "cores", "memory", "gpus", "workspaces", "jobs", "phase")


def _row(resource: Resource) -> list[str]:
    limit, used = resource.spec, resource.status.get("used", {})
    return [
        resource.name,
        f"{used.get('cpu_milli', 0) / 1000:g} of {limit.get('cpu_milli', 0) / 1000:g}",
        f"{units.size(used.get('memory_bytes', 0))} of {units.size(limit.get('memory_bytes', 0))}",
        f"{used.get('gpu_count', 0)} of {limit.get('gpu_count', 0)}",
        str(resource.status.get("workspaces", 0)),
        str(resource.status.get("jobs", 0)),
        str(resource.status.get("phase", "")),
    ]


VIEW = output.View(HEADINGS, _row, lambda resource: resource.name, lambda resource: output.sentences(resource.status))


@app.command("list")
def list_(ctx: typer.Context, output_: Output = None, env: Env = None) -> None:
    """List the tenants that you may see, with their limits and what is held of them."""
    output.write_list(client_of(ctx, env).tenants(), VIEW, output_)


@app.command()
def show(ctx: typer.Context, name: Name, output_: Output = None, env: Env = None) -> None:
    """Show one tenant: what it holds, and why nobody can work in it where that is so."""
    output.write_one(client_of(ctx, env).tenant(name), VIEW, output_)
