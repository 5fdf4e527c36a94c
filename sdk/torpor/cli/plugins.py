"""Commands that other packages bring, by the entry-point group ``torpor.commands``: functions that take the Typer app.

An entry point is named like the command that it brings. So only the one that was asked for is loaded, or all for the list of commands;
one that cannot be loaded costs a sentence, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import typer

from torpor.cli import exits

GROUP = "torpor.commands"
# Importing a package may fail in any of these ways, and its function may then not be what we call it with.
LOAD_ERRORS = (ImportError, AttributeError, SyntaxError, TypeError, ValueError, RuntimeError, OSError)


class EntryPoint(Protocol):
    """What is used of ``importlib.metadata.EntryPoint``."""

    @property
    def name(self) -> str:
        """The name of the command."""

    def load(self) -> Callable[[typer.Typer], object]:
        """Return the function that adds it."""


def registered() -> Iterable[EntryPoint]:
    """Return the entry points of the installed packages."""
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def load(app: typer.Typer, arguments: Sequence[str], found: Callable[[], Iterable[EntryPoint]]) -> None:
    """Add the commands that ``arguments`` need. Ends the process with a sentence when just that one cannot be loaded."""
    asked = _command(arguments)
    if asked in {
        *(group.name for group in app.registered_groups),
        *(_name(command) for command in app.registered_commands),
    }:
        return
    for point in found():
        if asked and point.name != asked:
            continue
        try:
            point.load()(app)
        except LOAD_ERRORS as error:
            _tell(point.name, error)
            if asked:
                raise SystemExit(exits.FAILURE) from error


def _command(arguments: Sequence[str]) -> str:
    """Return the first word that is neither an option nor the value of ``--env``."""
    words = iter(arguments)
    for word in words:
        if word == "--env":
            next(words, "")
        elif not word.startswith("-"):
            return word
    return ""


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or (command.callback.__name__ if command.callback else "")


def _tell(name: str, error: Exception) -> None:
    missing = isinstance(error, ImportError)
    remedy = " Install what it needs with: pip install 'torpor[embedded]'" if missing else ""
    sys.stderr.write(f"The command '{name}' cannot be loaded here ({type(error).__name__}: {error}).{remedy}\n")
