"""The security of every pod that a user's code runs in: Pod Security's level "restricted", written out in full."""

from __future__ import annotations

from typing import Any

USER_ID = 1000


def pod_security() -> dict[str, Any]:
    """Return the security context of the pod. Volumes that honour a group get the user's, without a walk through all files."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Return the security context of a container. Its root stays writable: what is written there is what a sleep saves."""
    return {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": False,
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
