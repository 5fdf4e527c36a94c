"""What a Job and its pod say of an attempt: objects and their surroundings in, a fact out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from torpor_hub.domain.diagnose import Cause
from torpor_hub.podspecs import names, room
from torpor_hub.podspecs.diagnose import Surroundings, diagnose_pod
from torpor_hub.podspecs.refusals import explain
from torpor_hub.runners.base import LOST, JobFact

Json = Mapping[str, Any]
# What time does not mend. Everything else that hinders a pod gets the runner's patience.
HOPELESS = frozenset({"IMAGE_MISSING", "IMAGE_DENIED", "IMAGE_NAME_INVALID", "IMAGE_NOT_ON_NODE"})
FOREIGN = frozenset({"REMOVED_BY_NODE", "NODE_LOST"})
DEADLINE = "DeadlineExceeded"
NO_POD = Cause("NOT_CREATED", "The cluster has not made the job's pod.", "Tell a platform admin.")


@dataclass(frozen=True)
class Seen:
    """An attempt's Job and, where there is one, its pod. ``events`` are those of the Job and of the pod."""

    job: Json
    pod: Json | None
    events: tuple[Json, ...] = ()
    node_answers: bool = True


def fact_of(seen: Seen, *, now_s: float, patience_s: float) -> JobFact:
    """Return what is known of the attempt. ``patience_s`` is how long its pod may take to come up where something hinders it.

    A pod that is being deleted lives until it has ended, and of one whose node does not answer nobody knows.
    """
    job_id, _, number = seen.job["metadata"]["name"].rpartition("-a")
    fact = JobFact(job_id, int(number), uid(seen.job), alive=True)
    if seen.pod is None:
        return _without_pod(fact, seen, now_s, patience_s)
    if has_ended(seen.pod):
        return _ended(fact, seen.pod, now_s)
    if not seen.node_answers:
        return replace(fact, alive=None)
    around = Surroundings(now_s, seen.events)
    cause = diagnose_pod(seen.pod, around) if is_pending(seen.pod) and not is_going(seen.pod) else None
    return fact if cause is None else _hindered(fact, cause, seen.pod, now_s, patience_s)


def unknown(name: str) -> JobFact:
    """Return what is known of an attempt of which nothing can be seen now."""
    job_id, _, number = name.rpartition("-a")
    return JobFact(job_id, int(number), "", alive=None)


def hinders(seen: Seen, *, longer_than_s: float, now_s: float) -> bool:
    """Return whether the attempt has not come up for so long that events may say why."""
    late = now_s - _seconds(seen.job["metadata"]["creationTimestamp"]) > longer_than_s
    return late and (seen.pod is None or is_pending(seen.pod)) and not is_finished(seen.job)


def is_finished(job: Json) -> bool:
    """Return whether the Job makes no pods any more."""
    return _condition(job, "Complete", "Failed") is not None


def may_start(job: Json) -> bool:
    """Return whether the Job, which has no pod now, has had none either: it may make its first at any time."""
    status = job.get("status", {})
    had = any(status.get(count) for count in ("active", "failed", "succeeded", "terminating"))
    return not had and not is_finished(job) and not any((status.get("uncountedTerminatedPods") or {}).values())


def is_pending(pod: Json) -> bool:
    """Return whether the pod's container has not run yet."""
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")


def is_going(pod: Json) -> bool:
    """Return whether the pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def has_ended(pod: Json) -> bool:
    """Return whether nothing of the pod runs any more; it never starts again."""
    return pod.get("status", {}).get("phase") in room.ENDED or _terminated(pod) is not None


def newest(pods: Sequence[Json]) -> Json | None:
    """Return the pod that counts: one that lives, else the last that was made."""
    order = sorted(pods, key=lambda pod: (not has_ended(pod), _seconds(pod["metadata"]["creationTimestamp"])))
    return order[-1] if order else None


def attempt_of(thing: Json) -> str:
    """Return the name of the attempt that an object belongs to."""
    return str((thing["metadata"].get("labels") or {}).get(names.ATTEMPT, ""))


def uid(thing: Json) -> str:
    """Return an object's UID."""
    return str(thing["metadata"]["uid"])


def _without_pod(fact: JobFact, seen: Seen, now_s: float, patience_s: float) -> JobFact:
    failed = _condition(seen.job, "Failed")
    if failed is not None and failed.get("reason") == DEADLINE:
        return replace(fact, alive=False, reason="timeout", message="The job ran longer than its limit and was ended.")
    if is_finished(seen.job) or is_going(seen.job):
        return replace(fact, alive=False, reason=LOST, message="The attempt's pod was removed from outside.")
    refused = [event for event in seen.events if event.get("reason") == "FailedCreate"]
    if not refused and not hinders(seen, longer_than_s=patience_s, now_s=now_s):
        return fact
    cause = explain(str(refused[-1].get("message", ""))) if refused else NO_POD
    return _hindered(fact, cause, seen.job, now_s, patience_s)


def _hindered(fact: JobFact, cause: Cause, thing: Json, now_s: float, patience_s: float) -> JobFact:
    """Return what an attempt is whose pod does not come up: alive, saying why, for as long as there is hope."""
    late = now_s - _seconds(thing["metadata"]["creationTimestamp"]) > patience_s
    if cause.reason in HOPELESS or late:
        return replace(fact, alive=False, reason=cause.reason.lower(), message=cause.message)
    return replace(fact, message=cause.message)


def _ended(fact: JobFact, pod: Json, now_s: float) -> JobFact:
    fact = replace(fact, alive=False)
    ended = _terminated(pod) or {}
    said = _last_words(str(ended.get("message", "")))
    if said is not None:
        return _as_told(fact, said)
    cause = diagnose_pod(pod, Surroundings(now_s))
    if cause is not None and cause.reason in ("OUT_OF_MEMORY", "NOT_CREATED"):
        return replace(fact, exit_code=ended.get("exitCode"), reason=cause.reason.lower(), message=cause.message)
    if cause is not None and cause.reason in FOREIGN:
        return replace(fact, reason=LOST, message=cause.message)
    code = ended.get("exitCode")
    return replace(fact, reason=LOST, message=f"The attempt ended before it could tell how, with exit code {code}.")


def _as_told(fact: JobFact, said: Json) -> JobFact:
    """Return what the wrapper said last; a result that it could not deliver went with its pod."""
    if said["result"] and not said["delivered"] and said["reason"] != LOST:
        return replace(fact, reason=LOST, message="The job's result could not be delivered before its pod ended.")
    return replace(
        fact,
        exit_code=said["exit_code"],
        reason=said["reason"],
        message=said["message"],
        exception=said["exception"],
    )


def _last_words(text: str) -> Json | None:
    """Return what the wrapper wrote for the kubelet; None where it is none of the wrapper's."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    wanted = {"exit_code", "reason", "message", "exception", "delivered", "result"}
    return said if isinstance(said, dict) and wanted <= said.keys() else None


def _terminated(pod: Json) -> Json | None:
    statuses: Sequence[Json] = pod.get("status", {}).get("containerStatuses") or ({},)
    ended: Json | None = (statuses[0].get("state") or {}).get("terminated")
    return ended


def _condition(thing: Json, *kinds: str) -> Json | None:
    for condition in thing.get("status", {}).get("conditions") or ():
        if condition["type"] in kinds and condition["status"] == "True":
            found: Json = condition
            return found
    return None


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
