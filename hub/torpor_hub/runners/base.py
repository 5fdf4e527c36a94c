"""The protocol of a runner. One contract suite runs over every implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint, Mount

MARK = "TORPOR_ATTEMPT"
LOST = "lost"


@dataclass(frozen=True)
class JobRun:
    """Everything that a runner needs to start one attempt of a job, without another question.

    ``token`` is for the wrapper alone; ``reader_token`` is for the job's own code, which reads with it as its owner.
    ``image`` is what a runner of containers runs: the environment's, or the profile's; empty where processes run.
    """

    job_id: str
    attempt: int
    ranks: int
    kind: str
    tenant: str
    user: str
    amount: Amount
    environment: Checkpoint | None
    token: str
    reader_token: str
    api_url: str
    timeout_s: float | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    tenant_id: str = ""
    user_id: str = ""
    image: str = ""
    mounts: tuple[Mount, ...] = ()

    @property
    def name(self) -> str:
        """The attempt's name, unique for ever: ``job-…-a1``."""
        return f"{self.job_id}-a{self.attempt}"

    @property
    def told(self) -> dict[str, str]:
        """The environment variables that say to the wrapper, wherever it runs, what it wraps; its secrets are beside them."""
        return {
            **self.variables,
            "TORPOR_URL": self.api_url.removesuffix("/").removesuffix("api/v1"),
            "TORPOR_TENANT": self.tenant,
            "TORPOR_JOB": self.job_id,
            MARK: self.name,
        }

    @property
    def secrets(self) -> dict[str, str]:
        """The environment variables that belong into no record; the wrapper passes ``TORPOR_TOKEN`` alone on to the job's code."""
        return {"TORPOR_JOB_TOKEN": self.token, "TORPOR_TOKEN": self.reader_token}


@dataclass(frozen=True)
class JobFact:
    """What a runner knows of one attempt at one moment; ``alive`` None where it cannot tell.

    Of one that lives ``message`` says what hinders it from coming up. What an ended one left behind: ``reason`` as on the wire,
    ``lost`` where nobody knows how its code would have ended, or what the runner found: ``image_missing``.
    """

    job_id: str
    attempt: int
    handle: str
    alive: bool | None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    exception: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Salvage:
    """What an ended attempt left behind: its log from some offset on, and its pickled result if it has one."""

    log: bytes
    result: bytes | None


class Runner(Protocol):
    """Runs attempts of jobs. Everything may be repeated: starting what runs or ending what is gone is success."""

    async def start(self, run: JobRun) -> str:
        """Start the attempt and return its handle; an attempt of the same name that runs already is returned instead.

        Raises:
            RunnerError: when it cannot be started; the text is fit for the job's status.
        """
        ...

    async def facts(self) -> Mapping[str, JobFact]:
        """Return a live list of all attempts by ``JobRun.name``, ended ones included until they are forgotten.

        Raises:
            RunnerError: when the list cannot be made; callers then know nothing.
        """
        ...

    async def end(self, name: str, handle: str, *, grace_s: float) -> None:
        """End every process of exactly this attempt: a polite signal, then after ``grace_s`` a hard one."""
        ...

    async def salvage(self, name: str, *, log_from: int) -> Salvage:
        """Return what an ended attempt left behind and may not have delivered; nothing where nothing is known of it."""
        ...

    async def forget(self, name: str) -> None:
        """Remove the attempt's scratch folder and records, once it has ended and been recorded."""
        ...
