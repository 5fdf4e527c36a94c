"""What the pods of workspaces and of jobs have in common: one container of the user's, hardened, with home, data and scratch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Mount
from torpor_hub.podspecs import names, room, security
from torpor_hub.podspecs.quantities import GPU
from torpor_hub.podspecs.shape import ClusterShape

ENTRY = ("/opt/torpor/bin/python", "-I", "-m", "torpor_hub.programs.workspace")
ONE_NODE = "ReadWriteOnce"
NODE_GONE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
SHM_SHARE = 2


@dataclass(frozen=True)
class Program:
    """What runs in a pod: an image by digest, its command line and environment, and the folders that it gets for itself."""

    component: str
    image: str
    args: Sequence[str]
    environment: Mapping[str, str]
    amount: Amount
    scratch: Mapping[str, str]
    home_dir: str
    mounts: Sequence[Mount] = ()
    command: Sequence[str] = ENTRY
    probe: Mapping[str, Any] = field(default_factory=dict)


def pod_spec(program: Program, user_id: str, shape: ClusterShape, *, grace_s: int) -> dict[str, Any]:
    """Return the ``spec`` of a pod that runs ``program`` for one user.

    A pod never restarts in place, because a new container would begin with an empty layer. It tolerates a node that does not
    answer for as long as it takes: only the controller ends it.
    """
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "serviceAccountName": shape.service_account,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": security.pod_security(),
        "tolerations": _tolerations(program.amount, shape),
        "affinity": _affinity(user_id, shape),
        "containers": [_container(program)],
        "volumes": _volumes(program, user_id),
    }
    if shape.registry_host:
        spec["imagePullSecrets"] = [{"name": shape.pull_secret}]
    if shape.node_selector:
        spec["nodeSelector"] = dict(shape.node_selector)
    return spec


def resources(amount: Amount) -> dict[str, Any]:
    """Return requests and limits, which are the same: what is reserved is what is got.

    There is no limit on disk, because a pod over such a limit is removed with all that it holds.
    """
    values = {"cpu": f"{amount.cpu_milli}m", "memory": str(amount.memory_bytes)}
    if amount.gpu_count:
        values[GPU] = str(amount.gpu_count)
    return {"requests": dict(values), "limits": dict(values)}


def literal(text: str) -> str:
    """Return ``text`` such that the kubelet gives exactly it to the program: it would take ``$(NAME)`` for a variable."""
    return text.replace("$", "$$")


def variables(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return an environment as a container names it, in the order of names."""
    return [{"name": name, "value": literal(value)} for name, value in sorted(environment.items())]


def _container(program: Program) -> dict[str, Any]:
    return {
        "name": program.component,
        "image": program.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [literal(part) for part in program.command],
        "args": [literal(part) for part in program.args],
        "workingDir": program.home_dir,
        "env": variables(program.environment),
        "resources": resources(program.amount),
        "securityContext": security.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _volume_mounts(program),
        **program.probe,
    }


def _volume_mounts(program: Program) -> list[dict[str, Any]]:
    own = [{"name": name, "mountPath": path} for name, path in program.scratch.items()]
    data = [
        {"name": f"data-{number}", "mountPath": mount.path, "readOnly": True}
        for number, mount in enumerate(program.mounts)
    ]
    shm = {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 # the container's own
    return [{"name": "home", "mountPath": program.home_dir}, shm, *own, *data]


def _volumes(program: Program, user_id: str) -> list[dict[str, Any]]:
    home = {"name": "home", "persistentVolumeClaim": {"claimName": names.home_claim(user_id)}}
    # In memory, so it counts to the container's limit; the default of 64 MiB is too small for worker processes.
    shm = {"medium": "Memory", "sizeLimit": str(program.amount.memory_bytes // SHM_SHARE)}
    return [
        home,
        {"name": "shm", "emptyDir": shm},
        *({"name": name, "emptyDir": {}} for name in program.scratch),
        *_data_volumes(program.mounts),
    ]


def _data_volumes(mounts: Iterable[Mount]) -> Iterable[dict[str, Any]]:
    for number, mount in enumerate(mounts):
        yield {"name": f"data-{number}", "persistentVolumeClaim": {"claimName": mount.claim, "readOnly": True}}


def _tolerations(amount: Amount, shape: ClusterShape) -> list[dict[str, Any]]:
    lost = [{"key": key, "operator": "Exists", "effect": "NoExecute"} for key in NODE_GONE]
    gpu = [{"key": GPU, "operator": "Exists"}] if amount.gpu_count else []
    return [*lost, *gpu, *(dict(toleration) for toleration in shape.tolerations)]


def _affinity(user_id: str, shape: ClusterShape) -> dict[str, Any]:
    beside = {"podAffinity": _beside_own(user_id)} if shape.home_access_mode == ONE_NODE else {}
    return {"nodeAffinity": room.not_draining(), **beside}


def _beside_own(user_id: str) -> dict[str, Any]:
    """Return the affinity that keeps pods with the same home on one node, where a home can be mounted on one only."""
    term = {
        "labelSelector": {"matchLabels": {names.MANAGED_BY: names.OWNER, names.USER: user_id}},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
