"""Why a pod has not started, or has ended: its status, its events and its node in, a cause out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from torpor_hub.domain.diagnose import Cause, diagnose
from torpor_hub.domain.units import Amount, cores, size
from torpor_hub.podspecs import room
from torpor_hub.podspecs.quantities import GPU

Json = Mapping[str, Any]
# Healthy first starts wait for a volume too, for as long as it takes to make one.
UNBOUND_GRACE_S = 15.0
MOUNT_GRACE_S = 60.0
SIGNALLED = 128
LONGEST_QUOTE = 300
ADMIN = "Tell a platform admin."
AGAIN = "Start it again in a minute; if that fails too, tell a platform admin."
KEPT = "What was saved is kept: start it again."
MISSING = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|NAME_UNKNOWN|MANIFEST_UNKNOWN", re.IGNORECASE
)
REFUSED_LOGIN = re.compile(r"unauthorized|authentication required|forbidden|denied", re.IGNORECASE)
UNBOUND = re.compile(r"unbound immediate|persistentvolumeclaim .* not found|persistent volumes to bind", re.IGNORECASE)
ELSEWHERE = re.compile(r"pod affinity rules|volume node affinity")
FAILED_BY_NODE = {
    "Evicted": "The node removed it: {message}",
    "NodeLost": "Its node is gone.",
    "Terminated": "It was ended because its node shut down.",
    "NodeShutdown": "Its node shut down.",
    "Preempting": "It had to make room for something more important.",
}


@dataclass(frozen=True)
class Surroundings:
    """What is known beside a pod: the time (Unix), events of it and of its claims, what is free, and whether its node answers
    and is being emptied.

    ``free`` is the most that any one node has free; None where nobody may see the nodes. ``log`` are the last lines that the
    program wrote; where there are none, the pod's own status has the end of them.
    """

    now_s: float
    events: tuple[Json, ...] = ()
    free: Amount | None = None
    node_answers: bool = True
    node_drains: bool = False
    log: str = ""
    had_answered: bool = False


def diagnose_pod(pod: Json, around: Surroundings) -> Cause | None:
    """Return why the pod will not run without help, or why it ended; None while it runs or may yet come up.

    Reasons beside those of ``domain.diagnose``: ``IMAGE_MISSING IMAGE_DENIED IMAGE_UNREACHABLE IMAGE_NOT_ON_NODE
    IMAGE_NAME_INVALID NO_ROOM NO_NODE HOME_ELSEWHERE VOLUME_UNBOUND VOLUME_NOT_MOUNTED NOT_CREATED OUT_OF_MEMORY
    REMOVED_BY_NODE NODE_LOST``. Source of the signals: kubelet and scheduler of Kubernetes 1.34.
    """
    return (
        _ended(pod, around)
        or _node_lost(pod, around)
        or _not_scheduled(pod, around)
        or _waiting(pod)
        or _not_mounted(pod, around)
    )


def progress(pod: Json) -> str:
    """Return in a few words what the pod waits for now."""
    if not _condition(pod, "PodScheduled", "True"):
        return "Looking for a node with room"
    if _condition(pod, "Ready", "True"):
        return "Running"
    state = _state(pod)
    if "running" in state:
        return "The server starts"
    pulling = str(state.get("waiting", {}).get("reason", "")).endswith("ImagePull")
    return "The image's registry does not answer yet" if pulling else "Fetching the image and mounting volumes"


def exit_code(pod: Json) -> int | None:
    """Return how the pod's container ended, negative for a signal; None where it has not, or nobody saw it."""
    ended = _state(pod).get("terminated")
    if ended is None or "exitCode" not in ended:
        return None
    code = int(ended["exitCode"])
    return SIGNALLED - code if code > SIGNALLED else code


def _ended(pod: Json, around: Surroundings) -> Cause | None:
    status, ended = pod.get("status", {}), _state(pod).get("terminated")
    if status.get("reason") in FAILED_BY_NODE:
        text = FAILED_BY_NODE[status["reason"]].format(message=_quote(status.get("message", "")))
        return Cause("REMOVED_BY_NODE", text, KEPT)
    if ended is None:
        if status.get("phase") != "Failed":
            return None
        return Cause("REMOVED_BY_NODE", f"The node did not take it: {_quote(status.get('message', ''))}", AGAIN)
    if ended.get("reason") == "OOMKilled":
        return _out_of_memory(pod)
    if ended.get("reason") in ("ContainerCannotRun", "StartError"):
        text = f"The container could not be started: {_quote(ended.get('message', ''))}"
        return Cause("NOT_CREATED", text, ADMIN)
    log = around.log or str(ended.get("message", ""))
    return diagnose(exit_code(pod), log, had_answered=around.had_answered, kept=False)


def _out_of_memory(pod: Json) -> Cause:
    asked = size(room.requested(pod).memory_bytes)
    return Cause(
        "OUT_OF_MEMORY",
        f"It used more than its {asked} of memory and was ended.",
        "Start it with a larger profile, or load less at once.",
    )


def _node_lost(pod: Json, around: Surroundings) -> Cause | None:
    node = pod["spec"].get("nodeName")
    if around.node_answers or not node:
        return None
    return Cause(
        "NODE_LOST",
        f"The node '{node}' does not answer; nobody knows whether it still runs there.",
        "Wait for the node, or ask a platform admin to remove it; what was saved can be started elsewhere then.",
    )


def _not_scheduled(pod: Json, around: Surroundings) -> Cause | None:
    condition = _condition(pod, "PodScheduled", "False")
    if condition is None or condition.get("reason") != "Unschedulable":
        return None
    message = str(condition.get("message", ""))
    if UNBOUND.search(message):
        return _unbound(pod, condition, around)
    if ELSEWHERE.search(message):
        return Cause(
            "HOME_ELSEWHERE",
            "Your home can be used on one node at a time, and that node has no room or takes nothing new.",
            "Put your other workspace to sleep or end your job there, then start again.",
        )
    if "Insufficient" in message:
        return _no_room(pod, message, around.free)
    return Cause("NO_NODE", f"No node takes it: {_quote(message)}", ADMIN)


def _no_room(pod: Json, message: str, free: Amount | None) -> Cause:
    asked = room.requested(pod)
    lacking = [name for name in ("cpu", "memory", GPU) if f"Insufficient {name}" in message]
    said = {"cpu": cores(asked.cpu_milli), "memory": f"{size(asked.memory_bytes)} of memory", GPU: _gpus(asked)}
    wish = " and ".join(said[name] for name in lacking) or "what it asks for"
    rest = "" if free is None else _free(asked, free, lacking)
    return Cause(
        "NO_ROOM",
        f"No node has {wish} free.{rest}",
        "Take a smaller profile, or put a workspace to sleep and start again.",
    )


def _free(asked: Amount, free: Amount, lacking: Iterable[str]) -> str:
    """Return the most that a node has, of what is known to lack: pods that the platform cannot see may hold the rest."""
    facts = {
        "cpu": (free.cpu_milli < asked.cpu_milli, cores(free.cpu_milli)),
        "memory": (free.memory_bytes < asked.memory_bytes, f"{size(free.memory_bytes)} of memory"),
        GPU: (free.gpu_count < asked.gpu_count, _gpus(free)),
    }
    short = [text for is_short, text in (facts[name] for name in lacking) if is_short]
    return f" The most that one node has free is {' and '.join(short)}." if short else ""


def _gpus(amount: Amount) -> str:
    return "1 GPU" if amount.gpu_count == 1 else f"{amount.gpu_count} GPUs"


def _unbound(pod: Json, condition: Json, around: Surroundings) -> Cause | None:
    failed = _events_of_claims(pod, around.events)
    since = _seconds(condition.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp"))
    if not failed and around.now_s - since < UNBOUND_GRACE_S:
        return None
    why = _quote(failed[-1].get("message", "")) if failed else _quote(str(condition.get("message", "")))
    return Cause("VOLUME_UNBOUND", f"Its home has no volume yet: {why}", ADMIN)


def _waiting(pod: Json) -> Cause | None:
    waiting = _state(pod).get("waiting")
    if waiting is None:
        return None
    reason, message = waiting.get("reason", ""), str(waiting.get("message", ""))
    match reason:
        case "ErrImageNeverPull":
            text = "The image is not on the node, and the platform may not fetch it."
            return Cause("IMAGE_NOT_ON_NODE", text, ADMIN)
        case "InvalidImageName":
            return Cause("IMAGE_NAME_INVALID", f"The image's name cannot be read: {_quote(message)}", ADMIN)
        case "ErrImagePull" | "ImagePullBackOff":
            return _image(message, again=reason == "ErrImagePull")
        case "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError":
            return Cause("NOT_CREATED", f"The container could not be made: {_quote(message)}", ADMIN)
    return None


def _image(message: str, *, again: bool) -> Cause | None:
    """Return why an image does not come. One that was only out of reach is tried once more before anybody is told."""
    if MISSING.search(message):
        step = "Choose the previous environment or the profile's own; if that fails too, tell a platform admin."
        return Cause("IMAGE_MISSING", f"The image is not in the registry: {_quote(message)}", step)
    if REFUSED_LOGIN.search(message):
        return Cause("IMAGE_DENIED", f"The registry did not let the node fetch the image: {_quote(message)}", ADMIN)
    if again:
        return None
    return Cause("IMAGE_UNREACHABLE", f"The image could not be fetched: {_quote(message)}", AGAIN)


def _not_mounted(pod: Json, around: Surroundings) -> Cause | None:
    scheduled = _condition(pod, "PodScheduled", "True")
    state = _state(pod)
    if scheduled is None or "running" in state or pod.get("status", {}).get("phase") != "Pending":
        return None
    uid = pod["metadata"].get("uid")
    failed = [
        event
        for event in around.events
        if event.get("involvedObject", {}).get("uid") == uid
        and event.get("reason") in ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
    ]
    if not failed or around.now_s - _seconds(scheduled.get("lastTransitionTime")) < MOUNT_GRACE_S:
        return None
    text = _quote(failed[-1].get("message", ""))
    if failed[-1]["reason"] == "FailedCreatePodSandBox":
        return Cause("NOT_CREATED", f"The node could not make the pod: {text}", AGAIN)
    return Cause("VOLUME_NOT_MOUNTED", f"A volume could not be mounted: {text}", ADMIN)


def _events_of_claims(pod: Json, events: Iterable[Json]) -> list[Json]:
    volumes = pod["spec"].get("volumes") or ()
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    return [
        event
        for event in events
        if event.get("reason") == "ProvisioningFailed"
        and event.get("involvedObject", {}).get("kind") == "PersistentVolumeClaim"
        and event["involvedObject"].get("name") in claims
    ]


def _state(pod: Json) -> Json:
    statuses: Sequence[Json] = pod.get("status", {}).get("containerStatuses") or ({},)
    state: Json = statuses[0].get("state") or {}
    return state


def _condition(pod: Json, kind: str, status: str) -> Json | None:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == kind and condition["status"] == status:
            found: Json = condition
            return found
    return None


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def _quote(text: object) -> str:
    return " ".join(str(text).split())[:LONGEST_QUOTE].rstrip(".") + "."
