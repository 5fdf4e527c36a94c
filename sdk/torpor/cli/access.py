"""``torpor login`` and ``torpor doctor``: get in, and find out why one does not."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from torpor import config, wire
from torpor.cli import environments, exits, output
from torpor.cli.context import Context, Env, Output, OutputFormat, of
from torpor.client import Client
from torpor.errors import ConfigurationError, TorporError

FIRST_NAME = "default"


@dataclass(frozen=True)
class Finding:
    """What one check found; ``exit_code`` is 0 where all is well."""

    check: str
    ok: bool
    message: str
    next_step: str = ""
    exit_code: int = 0


def login(
    ctx: typer.Context,
    env: Env = None,
    url: Annotated[str | None, typer.Option(help="The platform's address; kept with the environment.")] = None,
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read the token from stdin.")] = False,
) -> None:
    """Keep a token for a platform, after trying it. Tokens are made on the platform's Token page."""
    context = of(ctx)
    path = config.config_path(context.environ)
    name = env or context.env or config.load(path).default or FIRST_NAME
    address = _address(context, name, url, path)
    token = _read_token(token_stdin, address)
    with Client(address, token, environ=context.environ, transport=context.transport) as client:
        person = client.me()
    known = config.load(path).environments.get(name)
    token_file = known.token_file if known else path.parent / "tokens" / name
    environments.write_private(token_file, f"{token}\n")
    _remember(path, name, address)
    typer.echo(f"Signed in to {address} as {person.name}; kept as environment {name}.", err=True)
    if not person.can_write:
        typer.echo("The token may read only: it lacks the scope custom:torpor:write.", err=True)


def doctor(ctx: typer.Context, env: Env = None, output_: Output = None) -> None:
    """Check the way to the platform, step by step; the exit code is that of the first step that failed."""
    findings: list[Finding] = []
    for finding in _findings(of(ctx), env):
        findings.append(finding)
        if output.chosen(output_) is OutputFormat.TABLE:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.message}")
            if finding.next_step:
                typer.echo(f"      {finding.next_step}")
    if output.chosen(output_) is not OutputFormat.TABLE:
        output.write_document([asdict(finding) for finding in findings], output.chosen(output_))
    raise typer.Exit(next((finding.exit_code for finding in findings if not finding.ok), 0))


def _findings(context: Context, env: str | None) -> Iterator[Finding]:
    """Return findings up to the first failure: what comes after it would only repeat it."""
    import cloudpickle

    yield Finding("local", True, f"Python {platform.python_version()}, cloudpickle {cloudpickle.__version__}.")
    clients: list[Client] = []

    def configuration() -> str:
        clients.append(context.client(env))
        settings = clients[0].settings
        return (
            f"The address is {settings.url.value} (from {settings.url.origin}), the token from {settings.token.origin}."
        )

    checks: list[tuple[str, Callable[[], str]]] = [
        ("configuration", configuration),
        ("api", lambda: _reach(clients[0])),
        ("token", lambda: _who(clients[0])),
        ("jobs", lambda: _jobs(clients[0])),
    ]
    for name, check in checks:
        try:
            yield Finding(name, True, check())
        except TorporError as error:
            yield Finding(name, False, error.message, error.next_step, exits.code_of(error))
            return


def _reach(client: Client) -> str:
    health = client.health()
    versions = [str(version) for version in health.get("wire", [])]
    if wire.WIRE_VERSION not in versions:
        raise TorporError(
            f"The platform speaks the wire versions {', '.join(versions) or 'none'}, and this SDK {wire.WIRE_VERSION}.",
            next_step="Install the SDK of the platform's version.",
        )
    return f"The API answers: version {health.get('version')}, wire version {wire.WIRE_VERSION}."


def _who(client: Client) -> str:
    person = client.me()
    tenants = ", ".join(f"{tenant['name']} ({tenant['role']})" for tenant in person.tenants)
    if not tenants and not person.admin:
        raise TorporError(f"{person.name} belongs to no tenant.", next_step="Ask an admin to be added to one.")
    if not person.can_write:
        step = "Make a token with the scope custom:torpor:write, then: torpor login --token-stdin"
        raise TorporError(f"The token of {person.name} may read only.", next_step=step)
    return f"The token is that of {person.name}; it may read and write. Tenants: {tenants or 'all, as admin'}."


def _jobs(client: Client) -> str:
    kinds = ", ".join(str(kind["kind"]) for kind in client.job_options()["kinds"])
    return f"Jobs may be submitted, of kind: {kinds}."


def _address(context: Context, name: str, url: str | None, path: Path) -> str:
    known = config.load(path).environments.get(name)
    found = url or (known.url if known else "") or context.environ.get("TORPOR_URL", "")
    if not found:
        raise ConfigurationError(f"Environment {name} has no address.", next_step="Add --url https://…")
    return config.normalize_url(found)


def _read_token(from_stdin: bool, address: str) -> str:
    if not from_stdin and not sys.stdin.isatty():
        raise typer.BadParameter("Add --token-stdin, and send the token to stdin.")
    platform_address = address.removesuffix(config.SERVICE_PATH)
    token = (
        sys.stdin.readline()
        if from_stdin
        else typer.prompt(f"Token (from {platform_address}hub/token)", hide_input=True, err=True)
    )
    if not token.strip():
        raise typer.BadParameter("No token arrived on stdin.")
    return str(token).strip()


def _remember(path: Path, name: str, address: str) -> None:
    document = environments.read(path)
    document.setdefault("default", name)
    entry = document.setdefault("env", {}).setdefault(name, {})
    entry["url"] = address
    environments.write(path, document)
