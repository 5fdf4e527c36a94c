"""``torpor jobs``: submit a command, see the queue, follow a log, cancel."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from torpor import units
from torpor.cli import exits, output
from torpor.cli.context import Env, Output, Wait, Yes, allow_change, client_of
from torpor.errors import TorporError
from torpor.job_handle import Job
from torpor.models import JobStatus, Resource
from torpor.polling import Pace

app = typer.Typer(help="Jobs: submit, see, follow, cancel.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Id, or name of the newest job of that name.")]
WaitTimeout = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most; by default for ever.")
]


def _row(resource: Resource) -> list[str]:
    status = JobStatus.parse(resource.status)
    created = f"{resource.created_at:%Y-%m-%d %H:%M}" if resource.created_at else ""
    place = str(status.position or "")
    return [
        resource.name,
        resource.tenant,
        resource.owner,
        str(resource.spec.get("kind", "")),
        status.phase,
        place,
        created,
    ]


def _details(resource: Resource) -> list[tuple[str, str]]:
    status = JobStatus.parse(resource.status)
    environment = status.environment or str(resource.spec.get("environment", ""))
    ended = str(status.exit_code) if status.exit_code is not None else ""
    raised = ": ".join(str(status.exception[key]) for key in ("type", "message") if status.exception.get(key))
    known = [
        ("amount", units.amount(resource.spec.get("amount") or {})),
        ("environment", environment),
        ("attempt", str(status.attempt or "")),
        ("exit code", ended),
    ]
    return [*output.sentences(resource.status), *known, ("exception", raised)]


HEADINGS = ("name", "tenant", "owner", "kind", "phase", "position", "created")
VIEW = output.View(HEADINGS, _row, lambda resource: resource.id, _details)


@app.command("list")
def list_(
    ctx: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Only those of this workspace, by name or id.")] = None,
    phase: Annotated[str | None, typer.Option(help="Only those in this phase, such as QUEUED.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="Without a limit.")] = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """List jobs, newest first."""
    client = client_of(ctx, env)
    workspace_id = client.workspace(workspace).id if workspace else None
    shown = None if everything else limit
    found = client.jobs(tenant=tenant, workspace=workspace_id, phase=phase.upper() if phase else None, limit=shown)
    output.write_list([job.resource for job in found], VIEW, output_)


@app.command()
def show(ctx: typer.Context, name: Name, output_: Output = None, env: Env = None) -> None:
    """Show one job: where it is, why, and what it waits for."""
    output.write_one(client_of(ctx, env).job(name).resource, VIEW, output_)


@app.command()
def logs(
    ctx: typer.Context,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    tail: Annotated[int | None, typer.Option(min=1, help="Only this many of the last lines.")] = None,
    rank: Annotated[int, typer.Option(min=0, help="Which process of a gang.")] = 0,
    env: Env = None,
) -> None:
    """Write a job's log."""
    job = client_of(ctx, env).job(name)
    pieces = [job.log(tail, rank=rank)] if tail is not None and not follow else job.logs(follow=follow, rank=rank)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()


@app.command()
def cancel(ctx: typer.Context, name: Name, yes: Yes = False, output_: Output = None, env: Env = None) -> None:
    """Cancel a job."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    job = client.job(name)
    job.cancel()
    output.write_one(job.resource, VIEW, output_)


@app.command()
def wait(ctx: typer.Context, name: Name, timeout: WaitTimeout = None, output_: Output = None, env: Env = None) -> None:
    """Wait for a job; the exit code is 0 when it succeeded and 1 otherwise."""
    job = client_of(ctx, env).job(name)
    _wait(job, timeout)
    output.write_one(job.resource, VIEW, output_)
    raise typer.Exit(_code(job))


@app.command()
def submit(
    ctx: typer.Context,
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    *,
    name: Annotated[str | None, typer.Option(help="By default the program's.")] = None,
    kind: Annotated[str, typer.Option(help="command or spark.")] = "command",
    cores: Annotated[float | None, typer.Option(min=0.001, help="By default what the platform offers.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Such as 2GiB or '512 MiB'; by default what the platform offers.")
    ] = None,
    environment: Annotated[str | None, typer.Option(help="workspace, profile or a digest.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which the job is ended.")] = None,
    retries: Annotated[int | None, typer.Option(min=0, help="How often it may begin again.")] = None,
    wait_: Wait = False,
    yes: Yes = False,
    output_: Output = None,
    env: Env = None,
) -> None:
    """Submit a command as a job: torpor jobs submit --cores 2 -- python train.py."""
    client = client_of(ctx, env)
    allow_change(client, yes=yes)
    try:
        memory_bytes = units.parse_memory(memory) if memory else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--memory") from error
    asked = {"name": name, "kind": kind, "cores": cores, "memory": memory_bytes, "environment": environment}
    job = client.submit(command, **asked, timeout=timeout, retries=retries)  # type: ignore[arg-type]
    if wait_:
        _wait(job, None)
    output.write_one(job.resource, VIEW, output_)
    raise typer.Exit(_code(job) if wait_ else 0)


def _wait(job: Job, timeout_s: float | None) -> None:
    pace = Pace(timeout_s)
    with output.told() as say:
        while not (status := job.refresh()).finished:
            say(f"{job.name}: {status}")
            if not pace.rest():
                job.wait(timeout=0)


def _code(job: Job) -> int:
    status = job.last_status
    if status.phase == "SUCCEEDED":
        return 0
    exits.tell(TorporError(status.message or f"Job {job.name} ended as {status.phase}.", next_step=status.next_step))
    return exits.FAILURE
