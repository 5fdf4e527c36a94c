"""Where the platform is and who asks: one answer from arguments, variables and the user's file, and why it is that.

The first that is set wins:

    address   argument url · argument env · TORPOR_URL · TORPOR_ENV · ``default`` of the file
    token     argument token · token of argument env · TORPOR_TOKEN · JUPYTERHUB_API_TOKEN · token of the file's environment

A token goes only where it belongs: the variables' tokens to the address in ``TORPOR_URL`` (``TORPOR_TOKEN`` anywhere when that is
not set, JupyterHub's never elsewhere), a file's token to its own address. In a workspace both variables are set, and
nothing needs to be configured. The file is ``~/.config/torpor/config.toml``::

    default = "work"

    [env.work]
    url = "https://hub.example.org/"
    token_file = "~/.config/torpor/tokens/work"     # this is the default
    protected = true                                # the CLI asks before it changes anything there
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from torpor.errors import ConfigurationError

SERVICE_PATH = "services/torpor/"
ADDRESS_HELP = "Set TORPOR_URL, or run: torpor login --url https://… --token-stdin"


@dataclass(frozen=True)
class Source:
    """One place that says something about a setting; ``why_not`` is empty for one that may be used."""

    origin: str
    value: str
    why_not: str = ""


@dataclass(frozen=True)
class Choice:
    """A setting's value, where it comes from, and all the places that were looked at, strongest first."""

    value: str
    origin: str
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Environment:
    """A named platform of the user's file."""

    name: str
    url: str
    token_file: Path
    protected: bool = False

    def token(self) -> str:
        """Return the stored token, or nothing where there is none."""
        try:
            return self.token_file.read_text().strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ConfigurationError(f"The token file {self.token_file} cannot be read: {error.strerror}.") from error


@dataclass(frozen=True)
class UserFile:
    """The user's file as read: its environments, and which of them is the default."""

    path: Path
    default: str = ""
    environments: Mapping[str, Environment] = field(default_factory=dict)

    def environment(self, name: str) -> Environment:
        """Return the environment called ``name``. Raises ConfigurationError, naming those that there are."""
        if name in self.environments:
            return self.environments[name]
        names = ", ".join(sorted(self.environments)) or "none"
        raise ConfigurationError(
            f"There is no environment '{name}' in {self.path} (there: {names}).",
            next_step=f"Add one with: torpor login --env {name} --url https://… --token-stdin",
        )


@dataclass(frozen=True)
class Settings:
    """The address and the token to use. ``workspace`` is the id of the workspace that this runs in, or empty."""

    url: Choice
    token: Choice
    workspace: str = ""
    environment: Environment | None = None

    def require(self) -> Settings:
        """Return these settings. Raises ConfigurationError where the address or the token is missing."""
        if not self.url.value:
            raise ConfigurationError("No platform is configured.", next_step=ADDRESS_HELP)
        if not self.token.value:
            raise ConfigurationError(
                f"There is no token for {self.url.value}.", next_step="Run: torpor login --token-stdin"
            )
        return self

    def explain(self) -> str:
        """Return for the address and the token which value is used, where it is from, and what was passed over and why."""
        return "\n".join(
            [*_explained("address", self.url, secret=False), *_explained("token", self.token, secret=True)]
        )


def config_path(environ: Mapping[str, str]) -> Path:
    """Return where the user's file is: ``TORPOR_CONFIG``, or below ``XDG_CONFIG_HOME`` or ``~/.config``."""
    if environ.get("TORPOR_CONFIG"):
        return Path(environ["TORPOR_CONFIG"]).expanduser()
    folder = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config"
    return Path(folder) / "torpor" / "config.toml"


def load(path: Path) -> UserFile:
    """Return the user's file, empty where there is none. Raises ConfigurationError with the line that is wrong."""
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return UserFile(path)
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.", next_step="Correct it, or remove it.") from error
    entries = content.get("env", {})
    environments = {name: _environment(path, name, entry) for name, entry in entries.items()}
    return UserFile(path, str(content.get("default", "")), environments)


def normalize_url(url: str) -> str:
    """Return the service's address, ending in ``services/torpor/``, for that address or for the platform's own."""
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigurationError(f"'{url}' is not an address.", next_step="It begins with https:// (or http://).")
    path = parts.path.rstrip("/") + "/"
    path = path.removesuffix("api/v1/")
    if not path.endswith(SERVICE_PATH):
        path = path.removesuffix("hub/") + SERVICE_PATH
    return urlunsplit((parts.scheme, parts.netloc.lower(), path, "", ""))


def resolve(
    *, url: str | None = None, token: str | None = None, env: str | None = None, environ: Mapping[str, str]
) -> Settings:
    """Return what to use, by the order at the top of this module. Raises ConfigurationError for an unknown ``env``."""
    file = load(config_path(environ))
    named = file.environment(env) if env else None
    address = _choose(list(_url_sources(url, named, environ, file)))
    target = normalize_url(address.value) if address.value else ""
    address = Choice(target, address.origin, address.sources)
    here = named if named and not url else _environment_at(target, environ, file)
    secret = _choose(list(_token_sources(token, named, here, target, environ)))
    return Settings(address, secret, environ.get("TORPOR_WORKSPACE", ""), here)


def _environment(path: Path, name: str, entry: Mapping[str, object]) -> Environment:
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        raise ConfigurationError(f"[env.{name}] in {path} has no url.", next_step='Add: url = "https://…"')
    token_file = Path(str(entry.get("token_file") or path.parent / "tokens" / name)).expanduser()
    return Environment(name, normalize_url(str(entry["url"])), token_file, bool(entry.get("protected", False)))


def _url_sources(
    url: str | None, named: Environment | None, environ: Mapping[str, str], file: UserFile
) -> Iterator[Source]:
    yield Source("argument url", url or "")
    yield Source(f"argument env ({named.name})" if named else "argument env", named.url if named else "")
    yield Source("TORPOR_URL", environ.get("TORPOR_URL", ""))
    decided = bool(url or named or environ.get("TORPOR_URL"))
    for origin, name in (("TORPOR_ENV", environ.get("TORPOR_ENV", "")), (f"default of {file.path}", file.default)):
        found = file.environments.get(name)
        if name and found is None and not decided:
            file.environment(name)
        yield Source(f"{origin} ({name})" if name else origin, found.url if found else "")
        decided = decided or found is not None


def _environment_at(target: str, environ: Mapping[str, str], file: UserFile) -> Environment | None:
    preferred = [environ.get("TORPOR_ENV", ""), file.default, *file.environments]
    found = (file.environments[name] for name in preferred if name in file.environments)
    return next((environment for environment in found if environment.url == target), None)


def _token_sources(
    token: str | None, named: Environment | None, here: Environment | None, target: str, environ: Mapping[str, str]
) -> Iterator[Source]:
    yield Source("argument token", token or "")
    variable_url = environ.get("TORPOR_URL", "")
    same = bool(variable_url) and normalize_url(variable_url) == target
    elsewhere = "it belongs to the address in TORPOR_URL"
    if named and here == named:
        yield Source(f"token file of {named.name}", named.token())
    yield Source("TORPOR_TOKEN", environ.get("TORPOR_TOKEN", ""), "" if same or not variable_url else elsewhere)
    yield Source("JUPYTERHUB_API_TOKEN", environ.get("JUPYTERHUB_API_TOKEN", ""), "" if same else elsewhere)
    if here and here != named:
        yield Source(f"token file of {here.name}", here.token())


def _choose(sources: list[Source]) -> Choice:
    chosen = next((source for source in sources if source.value and not source.why_not), Source("nowhere", ""))
    return Choice(chosen.value, chosen.origin, tuple(sources))


def _explained(title: str, choice: Choice, *, secret: bool) -> Iterator[str]:
    shown = _hidden(choice.value) if secret else choice.value
    yield f"{title}: {shown or 'not set'} (from {choice.origin})"
    for source in choice.sources:
        if source.origin == choice.origin:
            yield f"  {source.origin}: used"
        elif not source.value:
            yield f"  {source.origin}: not set"
        else:
            value = _hidden(source.value) if secret else source.value
            yield f"  {source.origin}: {value}, not used: {source.why_not or 'something stronger is set'}"


def _hidden(token: str) -> str:
    return f"…{token[-4:]}" if len(token) >= 16 else "…" * bool(token)
