"""What the API answers, as frozen values. Unknown fields are ignored, so that a newer platform still fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

FINISHED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


def parse_time(text: str | None) -> datetime | None:
    """Return a time of the API as an aware datetime in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def known(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of ``document`` that the dataclass ``kind`` has, without nulls: its defaults stand for those."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in document.items() if name in names and value is not None}


@dataclass(frozen=True)
class Status:
    """Where a thing is and why, in the platform's own words. ``since`` is when it got there."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    next_step: str = ""
    since: datetime | None = None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Return the status in ``document``."""
        return cls(**{**known(cls, document), **cls._times(document)})

    @classmethod
    def _times(cls, document: Mapping[str, Any]) -> dict[str, datetime | None]:
        return {"since": parse_time(document.get("since"))}

    def __str__(self) -> str:
        sentences = " ".join(part for part in (self.message, self.next_step) if part)
        return f"{self.phase}: {sentences}" if sentences else self.phase


@dataclass(frozen=True)
class JobStatus(Status):
    """Where a job is. ``position`` is its place in the queue, from 1; ``parts`` are sentences: what it waits for.

    ``notice`` says what it was not given of what it asked for.
    """

    attempt: int = 0
    position: int | None = None
    parts: tuple[str, ...] = ()
    notice: str = ""
    environment: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    exception: Mapping[str, Any] = field(default_factory=dict)
    log_bytes: int = 0

    @property
    def finished(self) -> bool:
        """Return whether nothing will change any more."""
        return self.phase in FINISHED

    @classmethod
    def _times(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        times = {name: parse_time(document.get(name)) for name in ("since", "started_at", "ended_at")}
        return {**times, "parts": tuple(document.get("parts") or ())}

    def __str__(self) -> str:
        place = f" (number {self.position} in the queue)" if self.position else ""
        return super().__str__() + place


@dataclass(frozen=True)
class WorkspaceStatus(Status):
    """Where a workspace is. ``progress`` is 0 to 100 while something happens; ``actions`` are what makes sense now.

    ``confirmations`` has, by action, the question to ask before it. ``lost`` says what the last end cost; ``notes`` are sentences
    that hold for as long as the platform is set up as it is. ``node`` is where it runs, in a place of many nodes.
    """

    url: str = ""
    page: str = ""
    progress: int | None = None
    operation: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    has_previous: bool = False
    notice: str = ""
    lost: str = ""
    notes: tuple[str, ...] = ()
    node: str = ""
    image: str = ""
    amount: Mapping[str, int] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    confirmations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def _times(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        lists = {name: tuple(document.get(name) or ()) for name in ("actions", "notes")}
        return {"since": parse_time(document.get("since")), **lists}


@dataclass(frozen=True)
class DatasetStatus(Status):
    """What the last import found. ``as_of`` is when; ``path`` is where code in a workspace or job finds the files."""

    as_of: datetime | None = None
    rows: int | None = None
    bytes: int | None = None
    files: int | None = None
    sample_rows: int | None = None
    path: str = ""
    code: str = ""

    @classmethod
    def _times(cls, document: Mapping[str, Any]) -> dict[str, datetime | None]:
        return {name: parse_time(document.get(name)) for name in ("since", "as_of")}


@dataclass(frozen=True)
class Resource:
    """One thing of the platform in its common shape; ``document`` is all that the API said."""

    id: str
    kind: str
    name: str
    version: int = 0
    tenant: str = ""
    owner: str = ""
    created_at: datetime | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Resource:
        """Return the resource in ``document``."""
        created_at = parse_time(document.get("created_at"))
        return cls(**{**known(cls, document), "created_at": created_at, "document": document})


@dataclass(frozen=True)
class Column:
    """A column of a dataset, with its Arrow type as text."""

    name: str
    type: str
    nullable: bool = True


@dataclass(frozen=True)
class Person:
    """Who asks: the name, whether a platform admin, the tenants, and whether the token may change anything."""

    name: str
    admin: bool = False
    can_write: bool = False
    tenants: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Return the person in ``document``."""
        return cls(**{**known(cls, document), "tenants": tuple(document.get("tenants") or ())})
