from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.podspecs.examples import GIB, pod
from torpor_hub.domain.units import Amount
from torpor_hub.podspecs import room
from torpor_hub.podspecs.quantities import parse


def node(name: str, *, ready: str = "True", cordoned: bool = False, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": cordoned},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def on(name: str, phase: str = "Running") -> dict[str, Any]:
    made = pod(amount=Amount(1500, 2 * GIB))
    made["spec"]["nodeName"], made["status"] = name, {"phase": phase}
    return made


def test_what_runs_on_a_node_is_not_free_there_and_what_has_ended_is() -> None:
    rooms = room.free([node("a"), node("b")], [on("a"), on("a", "Succeeded"), on("elsewhere")])
    assert rooms == {"a": Amount(2500, 6 * GIB, 1), "b": Amount(4000, 8 * GIB, 1)}
    assert room.freest(rooms) == Amount(4000, 8 * GIB, 1)


def test_a_node_that_is_cordoned_or_silent_has_no_room() -> None:
    assert room.free([node("a", cordoned=True), node("b", ready="Unknown")], []) == {}
    assert room.freest({}) == Amount()


DRAINS = {"true": True, "": True, "2026-01-31": True, "false": False, None: False}


@pytest.mark.parametrize(("value", "drains"), DRAINS.items())
def test_a_node_that_an_admin_empties_gets_nothing_new(value: str | None, drains: bool) -> None:
    labels = {} if value is None else {"torpor/drain": value}
    marked = node("a", **labels)
    assert room.draining(marked) is drains
    assert (room.free([marked], []) == {}) is drains
    assert takes(pod()["spec"]["affinity"]["nodeAffinity"], labels) is not drains


def takes(affinity: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether the scheduler would give a pod of this affinity to a node of these labels."""
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    meets = {
        "DoesNotExist": lambda rule: rule["key"] not in labels,
        "In": lambda rule: labels.get(rule["key"]) in rule["values"],
    }
    return any(all(meets[rule["operator"]](rule) for rule in term["matchExpressions"]) for term in terms)


def test_a_cordon_alone_empties_nothing() -> None:
    assert room.draining(node("a", cordoned=True)) is False


def test_capacity_counts_cordoned_nodes_but_no_silent_ones() -> None:
    assert room.capacity([node("a", cordoned=True), node("b", ready="Unknown")]) == Amount(4000, 8 * GIB, 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2Gi", 2 * GIB),
        ("1500m", 1.5),
        ("1e3", 1000),
        ("3221225472", 3 * GIB),
        ("1.5k", 1500),
        ("100n", 1e-7),
        ("0", 0),
    ],
)
def test_quantities_are_read_as_the_api_server_reads_them(text: str, number: float) -> None:
    assert float(parse(text)) == pytest.approx(number)


@given(st.text(alphabet="0123456789.KMGimn e-+"))
def test_what_is_no_quantity_is_refused_and_never_crashes(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert "is no quantity" in str(error)
