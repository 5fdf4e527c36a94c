"""Pod Security's level "restricted", as its standard says it: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod: dict[str, Any]) -> list[str]:
    """Return what in a pod's spec is above the level."""
    return [
        *_of_pod(pod),
        *(f"{each['name']}: {what}" for each in _containers(pod) for what in _of_container(pod, each)),
    ]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", [])]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    for volume in pod.get("volumes", []):
        yield from (f"volume {volume['name']}: {kind}" for kind in set(volume) - VOLUMES - {"name"})
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls"


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    around, own = pod.get("securityContext", {}), container.get("securityContext", {})
    both = {**around, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
        yield "runs as root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    held = own.get("capabilities", {})
    if "ALL" not in held.get("drop", []) or set(held.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort"
