from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor_hub.domain.queue import Plan, Share, Waiting, never, plan
from torpor_hub.domain.units import Amount

GIB = 1024**3
TENANTS = ("red", "green", "blue")


def amount(cores: float, gib: float = 1) -> Amount:
    return Amount(int(cores * 1000), int(gib * GIB))


def share(cores: float, held: float = 0, gib: float = 64) -> Share:
    return Share(amount(cores, gib), amount(held, held))


def parts(decided: Plan, job: str) -> str:
    return " ".join(part for explained in decided.waiting if explained.id == job for part in explained.parts)


amounts = st.builds(amount, st.integers(1, 5), st.integers(1, 5))
shares = st.builds(
    Share, st.builds(amount, st.integers(3, 12), st.integers(3, 12)), st.builds(amount, st.integers(0, 4))
)


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[Waiting], dict[str, Share], Share]:
    jobs = draw(st.lists(st.tuples(st.sampled_from(TENANTS), amounts), max_size=12))
    queue = [Waiting(f"job-{number}", tenant, asked) for number, (tenant, asked) in enumerate(jobs)]
    return queue, {tenant: draw(shares) for tenant in TENANTS}, draw(shares)


@given(queues())
def test_no_limit_is_ever_passed(given_queue: tuple[list[Waiting], dict[str, Share], Share]) -> None:
    queue, tenants, pool = given_queue
    admitted = [job for job in queue if job.id in plan(queue, tenants, pool).admitted]
    for tenant, room in tenants.items():
        asked = sum((job.amount for job in admitted if job.tenant_id == tenant), Amount())
        assert asked == Amount() or asked.fits(room.free)
    assert not admitted or sum((job.amount for job in admitted), Amount()).fits(pool.free)


@given(queues())
def test_nobody_is_overtaken_within_a_tenant_or_while_waiting_for_the_pool(
    given_queue: tuple[list[Waiting], dict[str, Share], Share],
) -> None:
    queue, tenants, pool = given_queue
    decided = plan(queue, tenants, pool)
    assert list(decided.admitted) == [job.id for job in queue if job.id in decided.admitted]
    stopped: set[str] = set()
    closed = False
    taken = dict.fromkeys(TENANTS, Amount())
    for job in queue:
        if never(job.amount, tenants[job.tenant_id].limit, pool.limit):
            assert job.id not in decided.admitted
        elif job.id in decided.admitted:
            assert not closed
            assert job.tenant_id not in stopped
            taken[job.tenant_id] += job.amount
        else:
            own_room = job.amount.fits(tenants[job.tenant_id].free - taken[job.tenant_id])
            closed = closed or (own_room and job.tenant_id not in stopped)
            stopped.add(job.tenant_id)


@given(queues())
def test_every_job_is_admitted_or_explained_with_its_place(
    given_queue: tuple[list[Waiting], dict[str, Share], Share],
) -> None:
    queue, tenants, pool = given_queue
    decided = plan(queue, tenants, pool)
    assert sorted([*decided.admitted, *(item.id for item in decided.waiting)]) == sorted(job.id for job in queue)
    assert [item.position for item in decided.waiting] == list(range(1, len(decided.waiting) + 1))
    assert all(item.parts and all(part.endswith(".") for part in item.parts) for item in decided.waiting)


@given(queues())
def test_the_first_that_can_run_runs_as_soon_as_there_is_room(
    given_queue: tuple[list[Waiting], dict[str, Share], Share],
) -> None:
    queue, tenants, pool = given_queue
    able = [job for job in queue if not never(job.amount, tenants[job.tenant_id].limit, pool.limit)]
    decided = plan(queue, tenants, pool)
    if able and able[0].amount.fits(pool.free) and able[0].amount.fits(tenants[able[0].tenant_id].free):
        assert able[0].id in decided.admitted


def test_a_job_says_what_it_needs_who_holds_it_and_how_much_is_missing() -> None:
    decided = plan([Waiting("a", "red", amount(2))], {"red": share(4, held=3)}, share(8))
    assert decided.waiting[0].parts == (
        "It needs 2 cores; its tenant may hold 4 cores, and 3 cores of that is held: 1 core must become free.",
    )


def test_a_job_that_would_fit_says_whose_turn_is_first() -> None:
    queue = [Waiting("big", "red", amount(4)), Waiting("small", "red", amount(1)), Waiting("other", "green", amount(1))]
    decided = plan(queue, {"red": share(4, held=2), "green": share(4)}, share(8))
    assert decided.admitted == ("other",)
    assert parts(decided, "small") == "1 job of its tenant came earlier and must start first."


def test_a_large_job_that_waits_for_the_pool_is_not_starved_by_small_ones() -> None:
    queue = [Waiting("big", "red", amount(6)), Waiting("small", "green", amount(1))]
    decided = plan(queue, {"red": share(8), "green": share(8)}, share(8, held=4))
    assert decided.admitted == ()
    assert "this platform lends jobs 8 cores" in parts(decided, "big")
    assert parts(decided, "small") == "1 job came earlier and must start first."


def test_a_job_that_became_impossible_holds_up_nobody_and_says_so() -> None:
    queue = [Waiting("big", "red", amount(6)), Waiting("small", "red", amount(1))]
    decided = plan(queue, {"red": share(4)}, share(8))
    assert decided.admitted == ("small",)
    assert parts(decided, "big") == "The job needs 6 cores, but its tenant may hold at most 4 cores."


def test_what_can_never_run_is_told_with_both_numbers() -> None:
    assert never(amount(9, 80), amount(4, 64), amount(8, 64)) == (
        "The job needs 9 cores, but its tenant may hold at most 4 cores.",
        "The job needs 80 GiB of memory, but its tenant may hold at most 64 GiB of memory.",
        "The job needs 9 cores, but this platform lends jobs at most 8 cores.",
        "The job needs 80 GiB of memory, but this platform lends jobs at most 64 GiB of memory.",
    )
