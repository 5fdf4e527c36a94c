"""The queue: which jobs may run now, and for every other one what it waits for. Order of arrival, whole jobs at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torpor_hub.domain.units import Amount, cores, size

TENANT = "its tenant may hold"
POOL = "this platform lends jobs"


@dataclass(frozen=True)
class Waiting:
    """A job in the queue; ``amount`` is that of all its ranks together."""

    id: str
    tenant_id: str
    amount: Amount


@dataclass(frozen=True)
class Share:
    """What may be held in all, and what is held now."""

    limit: Amount
    used: Amount

    @property
    def free(self) -> Amount:
        """What is left, below zero where a limit was lowered."""
        return self.limit - self.used

    def less(self, amount: Amount) -> Share:
        """Return the share once ``amount`` is held too."""
        return Share(self.limit, self.used + amount)


@dataclass(frozen=True)
class Explained:
    """Why a job waits: its place, from 1, and sentences with numbers."""

    id: str
    position: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Jobs to admit, in their order, and the explanation of every other one."""

    admitted: tuple[str, ...]
    waiting: tuple[Explained, ...]


@dataclass
class _Blocked:
    """Who must not be overtaken: anybody when ``pool``, and by tenant how many jobs wait."""

    pool: bool = False
    ahead: int = 0
    tenants: dict[str, int] = field(default_factory=dict)

    def by(self, job: Waiting, tenant: Share, pool: Share) -> None:
        """Note a job that waits; only what its own tenant leaves room for may hold up others."""
        turn = job.tenant_id not in self.tenants and job.amount.fits(tenant.free)
        self.pool = self.pool or (turn and not job.amount.fits(pool.free))
        self.ahead += 1
        self.tenants[job.tenant_id] = self.tenants.get(job.tenant_id, 0) + 1


def plan(queue: Sequence[Waiting], tenants: Mapping[str, Share], pool: Share) -> Plan:
    """Return what to admit from ``queue`` (oldest first) and why the rest waits.

    A job is never overtaken by a later one of its tenant, and a job that waits for the pool by none at all, so that a large one
    does not starve. A job that waits for its own tenant's quota holds up nobody else, and one that can never run holds up nobody.
    """
    shares, blocked = dict(tenants), _Blocked()
    admitted: list[str] = []
    waiting: list[Explained] = []
    for job in queue:
        tenant = shares[job.tenant_id]
        parts = never(job.amount, tenant.limit, pool.limit)
        if not parts:
            parts = _waits_for(job, tenant, pool, blocked)
            if not parts:
                admitted.append(job.id)
                shares[job.tenant_id], pool = tenant.less(job.amount), pool.less(job.amount)
                continue
            blocked.by(job, tenant, pool)
        waiting.append(Explained(job.id, len(waiting) + 1, parts))
    return Plan(tuple(admitted), tuple(waiting))


def never(amount: Amount, tenant: Amount, pool: Amount) -> tuple[str, ...]:
    """Return why an amount can never be had, as sentences with numbers; none when it can."""
    return tuple(
        f"The job needs {side.say(side.wanted)}, but {who} at most {side.say(side.limit)}."
        for who, most in ((TENANT, tenant), (POOL, pool))
        for side in _sides(amount, most, most)
        if side.wanted > side.limit
    )


def _waits_for(job: Waiting, tenant: Share, pool: Share, blocked: _Blocked) -> tuple[str, ...]:
    parts = [*_short(job.amount, tenant, TENANT), *_short(job.amount, pool, POOL)]
    if blocked.pool:
        parts.append(f"{_jobs(blocked.ahead)} came earlier and must start first.")
    elif job.tenant_id in blocked.tenants:
        parts.append(f"{_jobs(blocked.tenants[job.tenant_id])} of its tenant came earlier and must start first.")
    return tuple(parts)


def _short(amount: Amount, share: Share, who: str) -> list[str]:
    return [
        f"It needs {side.say(side.wanted)}; {who} {side.say(side.limit)}, and {side.say(side.limit - side.free)} of that is held: "
        f"{side.say(side.wanted - max(0, side.free))} must become free."
        for side in _sides(amount, share.limit, share.free)
        if side.wanted > side.free
    ]


@dataclass(frozen=True)
class _Side:
    """One kind of resource: how much is wanted, lent in all, and free."""

    wanted: int
    limit: int
    free: int
    say: Callable[[int], str]


def _sides(amount: Amount, limit: Amount, free: Amount) -> tuple[_Side, ...]:
    return (
        _Side(amount.cpu_milli, limit.cpu_milli, free.cpu_milli, cores),
        _Side(amount.memory_bytes, limit.memory_bytes, free.memory_bytes, _memory),
        _Side(amount.gpu_count, limit.gpu_count, free.gpu_count, _gpus),
    )


def _memory(count_bytes: int) -> str:
    return f"{size(count_bytes)} of memory"


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
