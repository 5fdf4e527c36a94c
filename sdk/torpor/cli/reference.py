"""The reference page of the command line, made from the commands themselves: ``python -m torpor.cli.reference``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from torpor.cli.root import application

HEAD = """# The command line

`torpor` is a thin layer over the SDK: `pip install 'torpor[cli]'`, then `torpor login --url https://… --token-stdin` once; in a workspace
nothing needs to be configured. Data goes to stdout, everything else to stderr. Names and ids are accepted everywhere.

**Output.** A table on a terminal, JSON elsewhere; `-o table|json|yaml|name` says otherwise. JSON and YAML are the API's own documents;
`name` is what other commands take. `NO_COLOR` is honoured.

**Which platform.** `--env` names an environment of `~/.config/torpor/config.toml`; `torpor env explain` shows what is used and why. In an
environment with `protected = true` every change asks first, as what cannot be undone does everywhere; `--yes` answers.

**Exit codes.** 0 ok · 1 failure, or a job that failed · 2 usage · 3 not found · 4 not signed in or not configured · 5 forbidden · 6 conflict ·
7 timeout or unavailable · 130 interrupted.

Other packages may add commands by the entry-point group `torpor.commands`: an entry point is named like its command and is a function that
takes the Typer application. `torpor up` and `torpor users reset NAME`, which gives a user a new password, come that way.

<!-- What follows is made by `python -m torpor.cli.reference`; a test compares it. -->
"""


def page() -> str:
    """Return the page."""
    group = typer.main.get_command(application())
    return HEAD + "".join(f"\n{section}" for section in _sections(group, "torpor"))


def _sections(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        full = f"{path} {name}"
        if getattr(command, "commands", None):
            yield f"## {full}\n\n{command.help}\n"
            yield from _sections(command, full)
        else:
            level = "##" if path == "torpor" else "###"
            yield f"{level} {full}\n\n{_usage(command, full)}\n\n{command.help}\n{_table(command)}"


def _usage(command: Any, full: str) -> str:
    words = [_argument(param) for param in command.params if param.param_type_name == "argument"]
    return f"`{' '.join([full, *words, '[OPTIONS]'])}`"


def _argument(param: Any) -> str:
    text = param.name.upper() + ("…" if param.nargs == -1 else "")
    return text if param.required else f"[{text}]"


def _table(command: Any) -> str:
    rows = [f"| `{_label(param)}` | {_description(param)} |" for param in command.params if param.name != "help"]
    return "\n| | |\n| --- | --- |\n" + "\n".join(rows) + "\n" if rows else ""


def _label(param: Any) -> str:
    return param.name.upper() if param.param_type_name == "argument" else ", ".join(sorted(param.opts, key=len))


def _description(param: Any) -> str:
    choices = param.type_descriptor.choices
    listed = f" One of {', '.join(f'`{choice.value}`' for choice in choices)}." if choices else ""
    plain = param.default not in (None, False, "", ()) and not param.required
    return f"{param.help or ''}{listed}" + (f" Default: {param.default}." if plain else "")


if __name__ == "__main__":
    sys.stdout.write(page())
