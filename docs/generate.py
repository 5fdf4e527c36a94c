"""Write the reference pages that come from the code: ``python docs/generate.py``. A test compares them with the files."""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from torpor_hub.domain.datasets import FailureCode
from torpor_hub.errors import SourceFailed, UserError
from torpor_hub.podspecs import rights
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.settings import Settings

REFERENCE = Path(__file__).parent / "reference"
VALUES = Path(__file__).parent.parent / "helm" / "torpor" / "values.yaml"
LONGEST_DEFAULT = 60
UNITS = (("_bytes", "bytes"), ("_milli", "1/1000 core"), ("_s", "seconds"), ("_rows", "rows"), ("_retries", "times"))
# Errors that are no class: what the request boundary itself answers.
BOUNDARY = (
    (
        "unsupported_wire",
        400,
        "The client speaks a version of the wire that this platform does not; the text says what to update.",
    ),
    (
        "internal_error",
        500,
        "A fault of the platform. The text holds an id, and the server's log holds the rest under that id.",
    ),
)

SETTINGS_HEAD = """# Settings

One TOML file holds all settings. `torpor up` writes it into the state folder at each start, from its own options over a file of
yours over the defaults; keep your own settings in a file beside it:

```bash
torpor up --settings my-torpor.toml
```

```toml
public_url = "https://hub.example.org/torpor/"

[limits]
sleep_s = 1800
```

A name that is no setting is refused, with its place in the file. Secrets are no settings: they lie in `<state>/secrets`. The example
names a table as TOML does; below, `limits.sleep_s` is `sleep_s` in the table `limits`. What `seed` names is made when the database does
not have it yet; a change of a record's seed changes no record. A list of your own stands in place of the default one, which holds the
tenants `research` and `operations`, the users `ada`, `ben` and `root` (a platform admin), and the profiles `small` and `large`:

```toml
[[seed.tenants]]
name = "biology"
title = "Biology"
cpu_milli = 16000
memory_bytes = 68719476736

[[seed.users]]
name = "carol"
tenants = { biology = "admin" }
```

<!-- What follows is made by `python docs/generate.py`; a test compares it. -->
"""

VALUES_HEAD = """# Values of the chart

What `helm install --values FILE` may say; [Install on a cluster](../howto/install-on-a-cluster.md) says which of them you need. One is
required: `registry.host`, or `images.repository` for an installation without a registry. The chart refuses a value that it does not
know. What the first start creates (`seed`) and the deadlines (`limits`) have the names of the [settings](settings.md).

<!-- What follows is made by `python docs/generate.py` from helm/torpor/values.yaml; a test compares it. -->
"""

ERRORS_HEAD = """# Errors of the API

Every refusal is a problem document (RFC 9457) with a `detail` for people, a `next_step`, and a `code` that stays the same from version
to version. Programs look at `code`. What one may not see is answered like what does not exist: 404, `not_found`. Why a workspace, a job
or an import ended as it did is its `status.reason`, not an error: see [When something fails](../howto/when-something-fails.md).

<!-- What follows is made by `python docs/generate.py`; a test compares it. -->
"""

RIGHTS_HEAD = """# Rights on a cluster

What each service account of an installation named `torpor`, in the namespace `torpor`, may do; nothing else is granted. Proxy, importer
and agent have no right at all, and workspaces and jobs have no token. Where one pod is both api and controller, it runs under the
controller's account.

<!-- What follows is made by `python docs/generate.py`; a test compares it. -->
"""
SHAPE = ClusterShape(platform_namespace="torpor")


def settings_page() -> str:
    """Return the reference of settings."""
    parts = [SETTINGS_HEAD, *_section(Settings, "", "All settings")]
    return "\n".join(parts) + "\n"


def errors_page() -> str:
    """Return the reference of error codes."""
    rows = sorted(
        {(kind.code, kind.status, _first_line(kind)) for kind in _kinds(UserError) if kind is not SourceFailed}
    )
    lines = ["| code | status | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{code}` | {status} | {meaning} |" for code, status, meaning in (*rows, *BOUNDARY)]
    codes = ", ".join(f"`{code}`" for code in FailureCode)
    lines += ["", f"An import or a read that fails at its source has one of these as its `reason`: {codes}.", ""]
    return "\n".join([ERRORS_HEAD, *lines])


def rights_page() -> str:
    """Return the reference of what the platform's accounts may do on a cluster."""
    return "\n".join([RIGHTS_HEAD, *(line for role in rights.roles(SHAPE).values() for line in _role(role))])


def values_page() -> str:
    """Return the reference of the chart's values, from the comments beside them."""
    values = yaml.safe_load(VALUES.read_text())
    sections: dict[str, list[str]] = {}
    for path, meaning in _documented(VALUES.read_text()):
        found = functools.reduce(lambda value, key: value[key], path, values)
        row = f"| `{'.'.join(path)}` | {_shown(found)} | {meaning} |"
        sections.setdefault(path[0] if len(path) > 1 else "", []).append(row)
    parts = [VALUES_HEAD]
    for title, rows in sorted(sections.items(), key=lambda item: item[0] != ""):
        parts += [
            f"## {f'`{title}`' if title else 'At the top'}",
            "",
            "| value | default | meaning |",
            "| --- | --- | --- |",
        ]
        parts += [*rows, ""]
    return "\n".join(parts)


def _documented(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path and the meaning of each value that a comment beginning with ``# --`` stands above."""
    path: list[tuple[int, str]] = []
    meaning: list[str] = []
    for line in text.splitlines():
        comment = re.fullmatch(r" *# (-- )?(.*)", line)
        key = re.match(r"( *)([a-zA-Z0-9_]+):", line)
        if comment:
            meaning = [comment[2]] if comment[1] else [*meaning, comment[2]] if meaning else []
        elif key:
            path = [*((indent, name) for indent, name in path if indent < len(key[1])), (len(key[1]), key[2])]
            if meaning:
                yield tuple(name for _, name in path), " ".join(meaning)
            meaning = []


def _shown(value: Any) -> str:
    if value in ("", {}, []):
        return "empty"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else "see the file"


def _role(role: rights.Role) -> Iterator[str]:
    """Yield a role's heading and its table."""
    where = "in each tenant's namespace" if role.in_tenants else "in the whole cluster"
    yield f"## `{role.name}`\n\nThe service account `{role.account}`, {where}:\n"
    yield "| API group | resources | verbs | what for |\n| --- | --- | --- | --- |"
    for right in role.rights:
        things = ", ".join(f"`{thing}`" for thing in right.resources)
        named = f" named {', '.join(f'`{name}`' for name in right.names)}" if right.names else ""
        verbs = ", ".join(f"`{verb}`" for verb in right.verbs)
        yield f"| {f'`{right.group}`' if right.group else 'core'} | {things}{named} | {verbs} | {right.why} |"
    yield ""


def _section(model: type[BaseModel], prefix: str, title: str, meaning: str = "") -> Iterator[str]:
    """Yield the table of a model's own settings, and then a section for each model in it."""
    inner = {name: found for name, field in model.model_fields.items() if (found := _model_in(field)) is not None}
    plain = {name: field for name, field in model.model_fields.items() if name not in inner}
    if plain:
        yield f"## {title}\n"
        if meaning:
            yield f"{meaning}\n"
        yield "| setting | unit | default | meaning |\n| --- | --- | --- | --- |"
        for name, field in plain.items():
            yield f"| `{prefix}{name}` | {_unit(name)} | {_default(field)} | {field.description} |"
        yield ""
    for name, found in inner.items():
        field = model.model_fields[name]
        place = f"{prefix}{name}{'[]' if _is_many(field) else ''}"
        yield from _section(found, f"{place}.", f"`{place}`", field.description or _first_line(found))


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model that a setting holds, or holds many of."""
    for found in (field.annotation, *get_args(field.annotation)):
        if isinstance(found, type) and not isinstance(found, types.GenericAlias) and issubclass(found, BaseModel):
            return found
    return None


def _is_many(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS if name.endswith(ending)), "")


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and value >= 1024**2:
        return f"`{value}` ({value / 1024**2:g} MiB)"
    if isinstance(value, tuple):
        return f"`{list(value)}`" if value else "none"
    return f"`{value}`" if value not in ("", {}) else "empty"


def _kinds(kind: type[UserError]) -> Iterator[type[UserError]]:
    """Yield every class of refusal below ``kind``, also those that services define."""
    services = importlib.import_module("torpor_hub.services")
    for module in pkgutil.iter_modules(services.__path__):
        importlib.import_module(f"torpor_hub.services.{module.name}")
    for found in kind.__subclasses__():
        yield found
        yield from _kinds(found)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n", maxsplit=1)[0].replace("``", "`")


def main() -> None:
    """Write the pages."""
    REFERENCE.joinpath("settings.md").write_text(settings_page())
    REFERENCE.joinpath("errors.md").write_text(errors_page())
    REFERENCE.joinpath("rights.md").write_text(rights_page())
    REFERENCE.joinpath("values.md").write_text(values_page())


if __name__ == "__main__":
    main()
