"""What may be submitted as a job, and the first thing that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torpor_hub.domain.jobs import Desired
from torpor_hub.domain.names import RULE, is_name
from torpor_hub.domain.units import Amount

KINDS: Mapping[str, tuple[str, str]] = {
    "command": ("Command", "A function or a command, on the cores and the memory that you choose."),
    "spark": ("Spark", "A function that gets a Spark session as `spark`, with those cores and that memory."),
}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SHA256 = re.compile(r"[0-9a-f]{64}")
LEAST_CPU_MILLI, LEAST_MEMORY_BYTES = 100, 64 * 1024**2
LONGEST_S = 7 * 24 * 3600
MOST_RETRIES = 10
MOST_ARGUMENTS_BYTES = 100 * 1024


@dataclass(frozen=True)
class Spec:
    """What was submitted, checked. ``environment`` is ``workspace``, ``profile`` or a digest."""

    name: str
    kind: str
    tenant: str | None
    workspace: str | None
    environment: str
    amount: Amount
    code: Mapping[str, Any]
    timeout_s: float | None
    retries: int

    @property
    def has_bundle(self) -> bool:
        """Whether code comes with the spec."""
        return bool(self.code["type"] == "function")


class SpecError(ValueError):
    """A field of a spec is wrong; ``pointer`` names it, ``next_step`` says what to do."""

    def __init__(self, pointer: str, message: str, next_step: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.next_step = next_step


KNOWN = frozenset(
    {"name", "kind", "tenant", "workspace", "environment", "amount", "ranks", "code", "timeout_s", "retries", "desired"}
)


def parse_spec(content: object, *, retries: int) -> Spec:
    """Return the spec in ``content``; ``retries`` is the default.

    Raises:
        SpecError: for the first field that is wrong.
    """
    if not isinstance(content, Mapping):
        raise SpecError("/spec", "The spec is not a JSON object.", "Send the part `spec` as JSON.")
    for name in content:
        _require(name in KNOWN, f"/spec/{name}", f"A job has no field '{name}'.", f"Use {', '.join(sorted(KNOWN))}.")
    workspace = _text(content, "workspace")
    return Spec(
        name=_name(content),
        kind=_kind(content),
        tenant=_text(content, "tenant"),
        workspace=workspace,
        environment=_environment(content, workspace),
        amount=_amount(content),
        code=_code(content),
        timeout_s=_timeout(content),
        retries=_retries(content, retries),
    )


def _require(condition: bool, pointer: str, message: str, next_step: str) -> None:
    if not condition:
        raise SpecError(pointer, message, next_step)


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    _require(
        value is None or isinstance(value, str), f"/spec/{name}", f"'{name}' is not a text.", "Send a text or null."
    )
    return value or None


def _name(content: Mapping[str, Any]) -> str:
    name = content.get("name")
    said = "The job has no name." if name is None else f"{name!r} cannot name a job."
    _require(isinstance(name, str) and is_name(name), "/spec/name", said, f"Use {RULE}.")
    return str(name)


def _kind(content: Mapping[str, Any]) -> str:
    kind, ranks = content.get("kind"), content.get("ranks", 1)
    _require(kind in KINDS, "/spec/kind", f"There is no kind of job {kind!r}.", f"Use one of: {', '.join(KINDS)}.")
    _require(ranks == 1, "/spec/ranks", f"A job of kind '{kind}' has one rank.", "Leave `ranks` at 1.")
    wish = content.get("desired", Desired.RUNNING)
    _require(wish == Desired.RUNNING, "/spec/desired", "A job is submitted to run.", "Leave `desired` at running.")
    return str(kind)


def _environment(content: Mapping[str, Any], workspace: str | None) -> str:
    wanted = content.get("environment") or ("workspace" if workspace else "profile")
    known = isinstance(wanted, str) and (wanted in ("workspace", "profile") or DIGEST.fullmatch(wanted) is not None)
    _require(
        known, "/spec/environment", f"{wanted!r} is no environment.", "Use workspace, profile, or a digest sha256:…."
    )
    _require(
        wanted != "workspace" or workspace is not None,
        "/spec/environment",
        "The environment of a workspace was asked for, but no workspace was named.",
        "Name the workspace, or use the environment `profile`.",
    )
    return str(wanted)


def _amount(content: Mapping[str, Any]) -> Amount:
    asked = content.get("amount")
    _require(isinstance(asked, Mapping), "/spec/amount", "The amount is missing.", "Send cpu_milli and memory_bytes.")
    values = {}
    for name, least in (("cpu_milli", LEAST_CPU_MILLI), ("memory_bytes", LEAST_MEMORY_BYTES), ("gpu_count", 0)):
        value = dict(asked or {}).get(name, 0)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        _require(whole, f"/spec/amount/{name}", f"'{name}' is {value!r}.", f"Send a whole number, {least} or more.")
        values[name] = value
    return Amount(**values)


def _code(content: Mapping[str, Any]) -> Mapping[str, Any]:
    code = content.get("code")
    if not isinstance(code, Mapping) or code.get("type") not in ("function", "command"):
        raise SpecError("/spec/code", "The code is neither a function nor a command.", "Send `code` with its `type`.")
    if code["type"] == "command":
        argv = code.get("argv")
        words = (
            isinstance(argv, list) and bool(argv) and all(isinstance(part, str) and "\0" not in part for part in argv)
        )
        _require(
            words, "/spec/code/argv", "The command is not a list of words.", 'Send such as ["python", "train.py"].'
        )
        length = sum(len(part.encode()) for part in argv or ())
        _require(length <= MOST_ARGUMENTS_BYTES, "/spec/code/argv", "The command is too long.", "Put it into a file.")
        return {"type": "command", "argv": argv}
    kept = {name: code.get(name) for name in ("type", "name", "python", "cloudpickle", "sha256")}
    for name, value in kept.items():
        _require(
            isinstance(value, str) and bool(value), f"/spec/code/{name}", f"'{name}' is missing.", "Send it as text."
        )
    whole = SHA256.fullmatch(str(kept["sha256"])) is not None
    _require(whole, "/spec/code/sha256", "The sha256 of the bundle is not 64 hexadecimal digits.", "Send its sha256.")
    return kept


def _timeout(content: Mapping[str, Any]) -> float | None:
    value = content.get("timeout_s")
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_S
    _require(
        number, "/spec/timeout_s", f"'timeout_s' is {value!r}.", f"Send seconds, at most {LONGEST_S} (7 days), or null."
    )
    return float(value)


def _retries(content: Mapping[str, Any], default: int) -> int:
    value = content.get("retries")
    if value is None:
        return default
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_RETRIES
    _require(whole, "/spec/retries", f"'retries' is {value!r}.", f"Send a whole number from 0 to {MOST_RETRIES}.")
    return int(value)
