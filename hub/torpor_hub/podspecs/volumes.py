"""Read-only volumes of data for tenants whose members may read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torpor_hub.podspecs import names
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan

Json = dict[str, Any]
# A claim has to ask for something; what a volume holds is its source's matter.
NOMINAL = "1Gi"


def data_objects(
    plan: TenantPlan, source_id: str, volume_source: Mapping[str, Any], shape: ClusterShape
) -> tuple[Json, Json]:
    """Return a volume over the source's own storage, and the tenant's claim bound to it and to nothing else.

    ``volume_source`` is the part of a volume's ``spec`` that says where it lies, such as ``{"nfs": {…}}`` or ``{"csi": {…}}``.
    Removing both leaves the data alone.

    Raises:
        ClusterError: when an id cannot name an object.
    """
    namespace = names.namespace(shape.namespace_prefix, plan.name)
    claim = names.data_claim(source_id)
    volume = names.data_volume(namespace, source_id)
    labels = names.managed_labels("data", plan.id)
    modes = ["ReadOnlyMany"]
    spec: Json = {
        "accessModes": modes,
        "capacity": {"storage": NOMINAL},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim},
        **volume_source,
    }
    wish: Json = {
        "accessModes": modes,
        "resources": {"requests": {"storage": NOMINAL}},
        "storageClassName": "",
        "volumeName": volume,
    }
    return (
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume, "labels": {**labels, **shape.instance_labels}},
            "spec": spec,
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace, "labels": labels},
            "spec": wish,
        },
    )
