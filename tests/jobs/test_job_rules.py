from __future__ import annotations

import pytest

from torpor_hub.domain.job_specs import SpecError, parse_spec
from torpor_hub.domain.jobs import (
    FINAL,
    MISSING_LISTS,
    TRANSITIONS,
    AttemptState,
    Ending,
    Next,
    Phase,
    View,
    decide,
    judge,
)

SHA = "a" * 64
SPEC = {
    "name": "train",
    "kind": "command",
    "amount": {"cpu_milli": 1000, "memory_bytes": 2**30},
    "code": {"type": "command", "argv": ["python", "train.py"]},
}
FUNCTION = {"type": "function", "name": "main", "python": "3.11", "cloudpickle": "3.1.2", "sha256": SHA}


def test_a_full_spec_is_taken_and_the_rest_has_defaults() -> None:
    spec = parse_spec({**SPEC, "workspace": "ws-1"}, retries=2)
    assert (spec.environment, spec.retries, spec.timeout_s, spec.has_bundle) == ("workspace", 2, None, False)
    assert parse_spec({**SPEC, "code": FUNCTION}, retries=1).has_bundle
    assert parse_spec(SPEC, retries=1).environment == "profile"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "No Good"}, "/spec/name"),
        ({"kind": "quantum"}, "/spec/kind"),
        ({"ranks": 4}, "/spec/ranks"),
        ({"color": "red"}, "/spec/color"),
        ({"environment": "sha256:short"}, "/spec/environment"),
        ({"environment": "workspace"}, "/spec/environment"),
        ({"amount": None}, "/spec/amount"),
        ({"amount": {"cpu_milli": 1.5, "memory_bytes": 2**30}}, "/spec/amount/cpu_milli"),
        ({"amount": {"cpu_milli": 1000, "memory_bytes": 5}}, "/spec/amount/memory_bytes"),
        ({"code": {"type": "magic"}}, "/spec/code"),
        ({"code": {"type": "command", "argv": []}}, "/spec/code/argv"),
        ({"code": {**FUNCTION, "sha256": "x"}}, "/spec/code/sha256"),
        ({"code": {**FUNCTION, "python": None}}, "/spec/code/python"),
        ({"timeout_s": 0}, "/spec/timeout_s"),
        ({"retries": 11}, "/spec/retries"),
        ({"tenant": 3}, "/spec/tenant"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], pointer: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_spec({**SPEC, **change}, retries=1)
    assert raised.value.pointer == pointer
    assert raised.value.next_step


def test_nothing_leaves_a_final_phase_and_every_phase_can_end() -> None:
    assert all(not TRANSITIONS[phase] for phase in FINAL)
    for start in Phase:
        reached, waiting = {start}, [start]
        while waiting:
            new = TRANSITIONS[waiting.pop()] - reached
            reached |= new
            waiting.extend(new)
        assert reached & FINAL, start


@pytest.mark.parametrize(
    ("ending", "phase", "reason"),
    [
        (Ending(0), Phase.SUCCEEDED, ""),
        (Ending(3), Phase.FAILED, "EXIT_CODE"),
        (Ending(1, "exception", "ValueError: no"), Phase.FAILED, "EXCEPTION"),
        (Ending(143, "timeout", "too long"), Phase.FAILED, "TIMEOUT"),
        (Ending(137, "killed", "SIGKILL"), Phase.FAILED, "KILLED"),
        (Ending(143, "cancelled"), Phase.CANCELLED, "CANCELLED"),
        (Ending(None, "lost"), Phase.QUEUED, "LOST"),
        (Ending(None, "stopped"), Phase.QUEUED, "PLATFORM_STOPPED"),
    ],
)
def test_an_ending_becomes_a_phase_with_a_reason(ending: Ending, phase: Phase, reason: str) -> None:
    verdict = judge(ending, attempt=1, cancelled=False, retries_left=1)
    assert (verdict.phase, verdict.reason) == (phase, reason)


def test_only_what_was_lost_is_run_again_and_only_within_its_budget() -> None:
    assert judge(Ending(None, "lost"), attempt=2, cancelled=False, retries_left=0).phase is Phase.FAILED
    assert judge(Ending(1, "exception"), attempt=1, cancelled=False, retries_left=5).phase is Phase.FAILED


def test_a_cancel_wins_over_a_repeat_but_not_over_a_success() -> None:
    assert judge(Ending(None, "lost"), attempt=1, cancelled=True, retries_left=1).phase is Phase.CANCELLED
    assert judge(Ending(0), attempt=1, cancelled=True, retries_left=1).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("state", list(AttemptState))
def test_what_the_runner_cannot_tell_is_left_alone(state: AttemptState) -> None:
    assert decide(View(state, cancelled=True, known=True, alive=None)) is Next.NOTHING


@pytest.mark.parametrize(
    ("view", "step"),
    [
        (View(AttemptState.ADMITTED, cancelled=False), Next.START),
        (View(AttemptState.ADMITTED, cancelled=True), Next.CLOSE),
        (View(AttemptState.ADMITTED, cancelled=False, known=True, alive=True), Next.START),
        (View(AttemptState.ADMITTED, cancelled=True, known=True, alive=True), Next.END),
        (View(AttemptState.RUNNING, cancelled=False, known=True, alive=True), Next.NOTHING),
        (View(AttemptState.RUNNING, cancelled=True, known=True, alive=True), Next.END),
        (View(AttemptState.RUNNING, cancelled=False, known=True, alive=False), Next.CLOSE),
        (View(AttemptState.RUNNING, cancelled=False, missing=1), Next.NOTHING),
        (View(AttemptState.RUNNING, cancelled=False, missing=MISSING_LISTS), Next.CLOSE),
        (View(AttemptState.ENDED, cancelled=True, known=True, alive=True, ended_for_s=1), Next.NOTHING),
        (View(AttemptState.ENDED, cancelled=False, known=True, alive=True, ended_for_s=60), Next.END),
    ],
)
def test_an_attempt_has_one_next_step(view: View, step: Next) -> None:
    assert decide(view) is step
