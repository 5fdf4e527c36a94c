"""``torpor datasets``: browse, look at stored rows, register, import again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from torpor import units, wire
from torpor.cli import output
from torpor.cli.context import Env, Output, OutputFormat, Yes, allow_change, client_of
from torpor.models import DatasetStatus, Resource

app = typer.Typer(help="Datasets: browse, sample, register, import again.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="tenant/name or id; a bare name while only one tenant has it.")]


def _name(resource: Resource) -> str:
    return resource.name if "/" in resource.name else f"{resource.tenant}/{resource.name}"


def _row(resource: Resource) -> list[str]:
    status = DatasetStatus.parse(resource.status)
    as_of = f"{status.as_of:%Y-%m-%d %H:%M}" if status.as_of else ""
    rows = f"{status.rows:,}" if status.rows is not None else ""
    size = units.size(status.bytes) if status.bytes is not None else ""
    return [_name(resource), str(resource.spec.get("format", "")), status.phase, rows, size, as_of]


def _details(resource: Resource) -> list[tuple[str, str]]:
    status = DatasetStatus.parse(resource.status)
    description = str(resource.spec.get("description", ""))
    return [("description", description), *output.sentences(resource.status), ("path", status.path)]


VIEW = output.View(("name", "format", "phase", "rows", "size", "as of"), _row, _name, _details)
IMPORT_VIEW = output.View(
    ("import", "phase"),
    lambda resource: [resource.id, str(resource.status.get("phase", ""))],
    lambda resource: resource.id,
    lambda resource: output.sentences(resource.status),
)


@app.command("list")
def list_(
    ctx: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    search: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    output_: Output = None,
    env: Env = None,
) -> None:
    """List the datasets that you may see."""
    found = client_of(ctx, env).datasets(tenant=tenant, search=search)
    output.write_list([dataset.resource for dataset in found], VIEW, output_)


@app.command()
def show(ctx: typer.Context, name: Name, output_: Output = None, env: Env = None) -> None:
    """Show one dataset: what the last import found; as a table with its columns."""
    dataset = client_of(ctx, env).dataset(name)
    output.write_one(dataset.resource, VIEW, output_)
    if output.chosen(output_) is OutputFormat.TABLE and dataset.as_of:
        typer.echo(f"\n{dataset.schema!r}")


@app.command()
def sample(
    ctx: typer.Context,
    name: Name,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many at most.")] = 20,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Write stored rows of a dataset; the source is not asked."""
    client = client_of(ctx, env)
    dataset = client.dataset(name)
    answer = client.connection.json(wire.one("datasets", dataset.id, "sample").with_params(limit=rows, format="json"))
    names = [column["name"] for column in answer["columns"]]
    match output.chosen(output_):
        case OutputFormat.TABLE:
            output.write_table(names, [[_cell(value) for value in row] for row in answer["rows"]])
        case OutputFormat.NAME:
            typer.echo(dataset.name)
        case form:
            output.write_document([dict(zip(names, row, strict=True)) for row in answer["rows"]], form)


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="tenant/name; without a tenant, in your first.")],
    source: Annotated[str, typer.Option(help="Name or id of the source.")],
    path: Annotated[str, typer.Option(help="The folder or file, relative to the source's root.")],
    format_: Annotated[str, typer.Option("--format", help="How it is stored.")] = "parquet",
    description: Annotated[str, typer.Option(help="What it is, for those who browse.")] = "",
    yes: Yes = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Register a dataset; its first import is queued."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    made = client.create_dataset(name, source=source, path=path, format=format_, description=description)
    output.write_one(made.resource, VIEW, output_)


@app.command()
def refresh(ctx: typer.Context, name: Name, yes: Yes = False, output_: Output = None, env: Env = None) -> None:
    """Import a dataset again."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    output.write_one(client.import_dataset(name), IMPORT_VIEW, output_)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
