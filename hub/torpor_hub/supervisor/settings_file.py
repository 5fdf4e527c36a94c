"""The settings file that `torpor up` writes: its options over a file of one's own over the defaults."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torpor_hub.errors import StartupError
from torpor_hub.processes.files import write_atomically

DEFAULT_STATE = Path("~/.local/share/torpor")
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
INNER = ("server", "hub", "proxy_api")
HEAD = "# Written by `torpor up` at each start. Put your own settings into another file: torpor up --settings FILE\n"


@dataclass(frozen=True)
class Options:
    """What was asked on the command line; None where nothing was."""

    state: Path | None = None
    host: str | None = None
    port: int | None = None
    public_url: str | None = None
    prefix: str | None = None


def read(file: Path | None) -> dict[str, Any]:
    """Return the settings in a file of one's own; none without a file.

    Raises:
        StartupError: when it cannot be read or is not TOML.
    """
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise StartupError(f"The settings file {file} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"The settings file {file} is not well formed: {error}.") from error


def state_dir(options: Options, own: Mapping[str, Any]) -> Path:
    """Return the state folder, absolute."""
    return Path(options.state or own.get("state_dir") or DEFAULT_STATE).expanduser().absolute()


def listen(options: Options, own: Mapping[str, Any]) -> tuple[str, int]:
    """Return host and port at which people's requests arrive."""
    proxy = own.get("proxy", {})
    return options.host or proxy.get("host", DEFAULT_HOST), options.port or proxy.get("port", DEFAULT_PORT)


def public_url(options: Options, own: Mapping[str, Any]) -> str:
    """Return the address that people use, with its path; ends in a slash."""
    if options.public_url or (own.get("public_url") and not options.prefix and not options.port):
        url = options.public_url or own["public_url"]
        return str(url).rstrip("/") + "/"
    host, port = listen(options, own)
    path = (options.prefix or "").strip("/")
    shown = {"0.0.0.0": DEFAULT_HOST, "::": "[::1]"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{shown}:{port}/{path}/" if path else f"http://{shown}:{port}/"


def compose(
    options: Options, own: Mapping[str, Any], ports: Mapping[str, int], java_home: Path | str
) -> dict[str, Any]:
    """Return the whole content of the settings file."""
    host, port = listen(options, own)
    inner = {name: {"host": DEFAULT_HOST, "port": ports[name]} for name in INNER}
    return {
        **inner,
        "java_home": str(java_home),
        **own,
        "state_dir": str(state_dir(options, own)),
        "public_url": public_url(options, own),
        "proxy": {"host": host, "port": port},
    }


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write the settings as TOML, readable by their owner alone."""
    lines = [f"{name} = {to_toml(value)}\n" for name, value in content.items()]
    write_atomically(file, (HEAD + "".join(lines)).encode())


def to_toml(value: Any) -> str:
    """Return a value of a settings file as TOML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {to_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(each) for each in value) + "]"
    # JSON's texts, numbers and booleans are TOML's; other escapes than JSON's ASCII ones do not arise.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
