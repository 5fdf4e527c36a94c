"""The cluster as its administrator sees it: the tests' own way to it, apart from the platform's client."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

LISTER = Path(__file__).with_name("lister.py")
PYTHON = ("/opt/torpor/bin/python", "-I")


def run(*arguments: str, stdin: str | None = None, within_s: float = 120) -> str:
    """Return what kubectl prints.

    Raises:
        AssertionError: with its own words, when it fails.
    """
    ended = subprocess.run(
        ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert ended.returncode == 0, f"kubectl {' '.join(arguments)[:200]}: {ended.stderr[-2000:]}"
    return ended.stdout


def get(*arguments: str) -> dict[str, Any]:
    """Return an object, or a list of objects, as the API server has it."""
    return dict(json.loads(run("get", *arguments, "-o", "json")))


def items(*arguments: str) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return list(get(*arguments)["items"])


def apply(*objects: dict[str, Any]) -> None:
    """Make the objects what they say."""
    run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def delete(*objects: dict[str, Any]) -> None:
    """Remove the objects, and wait until they are gone."""
    run(
        "delete",
        "-f",
        "-",
        "--ignore-not-found",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}),
    )


def volume(namespace: str, claim: str) -> Path:
    """Return the folder of this machine behind a claim."""
    name = get("pvc", claim, "-n", namespace)["spec"]["volumeName"]
    return Path(get("pv", name)["spec"]["hostPath"]["path"])


def tree(namespace: str, pod: str, container: str) -> dict[str, list[Any]]:
    """Return the listing of a container's file system, made inside it by the tests' own lister."""
    command = ("exec", "-i", "-n", namespace, pod, "-c", container, "--", *PYTHON, "-")
    return dict(json.loads(run(*command, stdin=LISTER.read_text(), within_s=300)))


def listing_pod(namespace: str, name: str, image: str, node: str) -> dict[str, Any]:
    """Return a bare pod whose only process is the tests' own lister."""
    pod = bare_pod(namespace, name, image, node)
    room = {"cpu": "500m", "memory": "256Mi"}
    pod["spec"]["containers"][0] |= {
        "command": [*PYTHON, "-c", LISTER.read_text(), "packed"],
        "resources": {"requests": room, "limits": room},
    }
    return pod


def listed(namespace: str, pod: str, within_s: float) -> dict[str, list[Any]]:
    """Return what a listing pod has listed, once it has ended."""
    ended = ("--for=jsonpath={.status.phase}=Succeeded", f"--timeout={within_s}s")
    run("wait", f"pod/{pod}", "-n", namespace, *ended, within_s=within_s + 30)
    *lines, checksum = run("logs", pod, "-n", namespace).split()
    packed = "".join(lines)
    assert hashlib.sha256(packed.encode()).hexdigest() == checksum, (
        f"{len(packed)} bytes of a log are not the whole list"
    )
    return dict(json.loads(gzip.decompress(base64.b64decode(packed))))


def bare_pod(namespace: str, name: str, image: str, node: str) -> dict[str, Any]:
    """Return a pod that does nothing on a node, from an image, under the security that the namespace demands."""
    security = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    room = {"cpu": "100m", "memory": "256Mi"}
    container = {
        "name": "bare",
        "image": image,
        "command": ["/bin/sleep", "3600"],
        "securityContext": security,
        "resources": {"requests": room, "limits": room},
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _only(node)}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _only(node: str) -> dict[str, Any]:
    wanted = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
