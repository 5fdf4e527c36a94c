"""What a workspace is, the phases that it passes, and everything that its place needs to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.units import Amount


class Phase(StrEnum):
    """Where a workspace is. ``STOPPED`` keeps an environment that was not saved; ``ASLEEP`` has it in a checkpoint."""

    NEW = "NEW"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SLEEPING = "SLEEPING"
    ASLEEP = "ASLEEP"
    WAKING = "WAKING"
    STOPPED = "STOPPED"
    UNREACHABLE = "UNREACHABLE"
    FAILED = "FAILED"
    DELETING = "DELETING"


class Desired(StrEnum):
    """What the owner wishes."""

    RUNNING = "running"
    ASLEEP = "asleep"
    STOPPED = "stopped"
    DELETED = "deleted"


class SleepStep(StrEnum):
    """The steps of a sleep, in order; ``CANCEL`` and ``FAIL`` lead back to a running workspace."""

    QUIESCE = "QUIESCE"
    FREEZE = "FREEZE"
    UPLOAD = "UPLOAD"
    VERIFY = "VERIFY"
    REMOVE = "REMOVE"
    DONE = "DONE"
    CANCEL = "CANCEL"
    FAIL = "FAIL"


class EnvironmentChoice(StrEnum):
    """Which environment a start asks for."""

    CURRENT = "current"
    PREVIOUS = "previous"
    PROFILE = "profile"


@dataclass(frozen=True)
class Checkpoint:
    """A saved environment: an image by digest, and what it needs to be woken."""

    id: str
    repository: str
    digest: str
    python_version: str
    platform_version: str


@dataclass(frozen=True)
class Mount:
    """Data that a workspace or a job may read: a claim of its tenant's namespace, and where it is seen."""

    claim: str
    path: str


@dataclass(frozen=True)
class WorkspaceRun:
    """Everything that a place needs to start a workspace, without another question.

    ``environment`` holds the variables of the platform (``TORPOR_URL``, ``TORPOR_WORKSPACE`` …); the hub's own are added by
    the spawner. Folders are absolute. ``checkpoint`` is what the environment was restored from, if anything. ``image`` is what
    a place of containers runs: the checkpoint's, or the profile's; empty where processes run.
    """

    workspace_id: str
    grant_id: str
    name: str
    tenant: str
    user: str
    profile: str
    amount: Amount
    root_dir: str
    home_dir: str
    environment: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    restored: EnvironmentChoice = EnvironmentChoice.CURRENT
    tenant_id: str = ""
    user_id: str = ""
    image: str = ""
    mounts: tuple[Mount, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the run as JSON values, for the answer to a start."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> WorkspaceRun:
        """Return the run that ``to_json`` wrote."""
        values = dict(content)
        checkpoint = values.pop("checkpoint", None)
        amount = values.pop("amount")
        restored = EnvironmentChoice(str(values.pop("restored")))
        mounts: Any = values.pop("mounts", ())
        return cls(
            **values,  # type: ignore[arg-type]
            amount=Amount(**amount),  # type: ignore[arg-type]
            checkpoint=Checkpoint(**checkpoint) if checkpoint else None,  # type: ignore[arg-type]
            restored=restored,
            mounts=tuple(Mount(**mount) for mount in mounts),
        )


@dataclass(frozen=True)
class Fact:
    """What a place knows of one workspace at one moment.

    ``alive`` is None where the place cannot tell: unknown is never taken for stopped. ``handle`` names exactly this start
    (process id and start time, or pod UID), so that nothing else can be removed in its stead. ``frozen``: it stands still for a
    capture, and nothing in it can have changed since; None where the place cannot see that. ``node`` and ``container`` say where
    it runs, in a place of many nodes; ``reachable`` tells that this node answers, ``draining`` that an admin
    empties it. ``verdict``: why it will not come up, or ended, where the place knows more than an exit code and a log; of one that
    cannot be reached, why. ``waits_for``: a sentence on what one that comes up waits for; empty where the place cannot tell.
    """

    workspace_id: str
    grant_id: str
    alive: bool | None
    answering: bool | None
    handle: str
    port: int | None = None
    exit_code: int | None = None
    started_at: float | None = None
    frozen: bool | None = False
    node: str = ""
    container: str = ""
    reachable: bool = True
    draining: bool = False
    verdict: Cause | None = None
    waits_for: str = ""
