"""The chart's NetworkPolicies: no pod of the platform stands in the open, however the chart is set up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helm.chart import Json, Rendered, needs_helm, render

pytestmark = needs_helm
REGISTRY = ("--set", "registry.host=registry.example.org")
STORES = ("--set", "database.url=postgresql+psycopg://torpor@db.example.org/torpor", "--set", "blobs.url=s3://torpor")
INGRESS, EGRESS = "Ingress", "Egress"
BOTH = {INGRESS, EGRESS}
# Hub, server and controller reach the API server and stores that nobody knows beforehand.
GUARDED = {
    "server": {INGRESS},
    "hub": {INGRESS},
    **dict.fromkeys(("proxy", "importer", "agent", "demo"), BOTH),
}


@pytest.mark.parametrize("stores", [(), STORES], ids=["sqlite", "postgresql"])
def test_every_pod_of_the_platform_is_behind_a_wall(stores: tuple[str, ...]) -> None:
    expected = GUARDED | ({"controller": {INGRESS}} if stores else {})
    assert guarded(render(*REGISTRY, *stores)) == expected


def guarded(found: Rendered) -> dict[str, set[str]]:
    """Return for each component the directions in which policies stand before its pods."""
    seen: dict[str, set[str]] = {}
    for namespace, labels in pods(found):
        component = seen.setdefault(labels["app.kubernetes.io/component"], set())
        for policy in found.all("NetworkPolicy"):
            wanted = policy["spec"]["podSelector"].get("matchLabels", {})
            if policy["metadata"]["namespace"] == namespace and wanted.items() <= labels.items():
                component |= set(policy["spec"]["policyTypes"])
    return seen


def pods(found: Rendered) -> Iterator[tuple[str, Json]]:
    """Return namespace and labels of every pod that the chart makes."""
    for thing in found.objects:
        template = thing["spec"].get("template") if isinstance(thing.get("spec"), dict) else None
        if template and "spec" in template:
            yield thing["metadata"]["namespace"], template["metadata"]["labels"]
