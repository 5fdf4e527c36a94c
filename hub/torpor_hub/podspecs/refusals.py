"""What an API server's "no" means to people: its text in, a sentence with thing, limit and next step out."""

from __future__ import annotations

import re

from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.units import cores, size
from torpor_hub.podspecs.quantities import parse

QUOTA = re.compile(
    r"exceeded quota: (?P<name>\S+), requested: (?P<asked>.*?), used: (?P<used>.*?), limited: (?P<limit>.*)"
)
UNSET = re.compile(r"failed quota: (?P<name>\S+): must specify (?P<what>.+)")
RANGE = re.compile(
    r"(?P<end>maximum|minimum) (?P<thing>\S+) usage per (?P<per>\w+) is (?P<limit>[^,\s]+), but (?:limit|request) is (?P<asked>[^,\s\]]+)"
)
SECURITY = re.compile(r'violates PodSecurity "(?P<level>[\w-]+):[^"]*": (?P<what>.+)', re.DOTALL)
POLICY = re.compile(r"ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied request: (?P<what>.+)", re.DOTALL)
WEBHOOK = re.compile(r'admission webhook "[^"]*" denied the request(?: without explanation|: (?P<what>.+))', re.DOTALL)
RIGHT = re.compile(r'User "(?P<who>[^"]+)" cannot (?P<verb>\w+) resource "(?P<what>[^"]+)"')
ADMIN = "Tell a platform admin: the platform's own setting is at fault, not yours."
THINGS = {"memory": "memory", "cpu": "CPU", "storage": "storage", "pods": "pods", "persistentvolumeclaims": "homes"}
GPU = "nvidia.com/gpu"
BYTES = ("memory", "storage", "ephemeral-storage")


def explain(message: str) -> Cause:
    """Return what a refusal means, most often one with status 403. ``message`` is the ``Status`` object's, in full.

    The reasons are ``QUOTA LIMIT_RANGE POD_SECURITY POLICY NAMESPACE_ENDING FORBIDDEN``. Source of the texts: the admission
    plug-ins of Kubernetes 1.34.
    """
    for pattern, meaning in MEANINGS:
        found = pattern.search(message)
        if found:
            return meaning(found)
    return Cause("FORBIDDEN", "The cluster refused this.", ADMIN)


def amount(resource: str, text: str) -> str:
    """Return a quantity as people read it: ``3 GiB`` for ``3221225472`` of memory, ``1.5 cores`` for ``1500m`` of CPU."""
    try:
        value = parse(text)
    except ValueError:
        return text
    thing = _bare(resource)
    if thing in BYTES:
        return size(int(value))
    return cores(int(value * 1000)) if thing == "cpu" else f"{value:g}"


def _quota(found: re.Match[str]) -> Cause:
    asked, used, limit = (_pairs(found[part]) for part in ("asked", "used", "limit"))
    over = [
        f"{_thing(name)}: {amount(name, value)} asked, {amount(name, used.get(name, '0'))} "
        f"of {amount(name, limit.get(name, '0'))} in use"
        for name, value in asked.items()
    ]
    return Cause(
        "QUOTA",
        f"The tenant's share of the cluster is used up ({'; '.join(dict.fromkeys(over))}).",
        "Put a workspace to sleep, end a job, take a smaller profile, or ask a tenant admin for more.",
    )


def _unset(found: re.Match[str]) -> Cause:
    return Cause("QUOTA", f"The tenant's quota '{found['name']}' asks for what was not given: {found['what']}.", ADMIN)


def _range(found: re.Match[str]) -> Cause:
    thing, asked, limit = found["thing"], found["asked"], found["limit"]
    most = "at most" if found["end"] == "maximum" else "at least"
    per = {"Container": "workspace or job", "Pod": "workspace or job", "PersistentVolumeClaim": "volume"}
    return Cause(
        "LIMIT_RANGE",
        f"{_thing(thing)}: {amount(thing, asked)} asked, {most} {amount(thing, limit)} allowed "
        f"for one {per.get(found['per'], found['per'])}.",
        "Choose another size, or ask a tenant admin to change the limit.",
    )


def _security(found: re.Match[str]) -> Cause:
    return Cause(
        "POD_SECURITY",
        f"The cluster's Pod Security level '{found['level']}' does not allow this: {found['what'].strip()}.",
        ADMIN,
    )


def _policy(found: re.Match[str]) -> Cause:
    what = (found["what"] or "it gave no reason").strip().rstrip(".")
    if "no params found" in what:
        return Cause("POLICY", "The tenant's policy is not in its namespace yet.", "Try again in a minute.")
    return Cause("POLICY", f"A policy of the cluster does not allow this: {what}.", "Choose another image or size.")


def _ending(_: re.Match[str]) -> Cause:
    return Cause("NAMESPACE_ENDING", "The tenant's namespace is being removed.", "Choose another tenant.")


def _right(found: re.Match[str]) -> Cause:
    return Cause("FORBIDDEN", f"The platform may not {found['verb']} {found['what']} there.", ADMIN)


MEANINGS = (
    (QUOTA, _quota),
    (UNSET, _unset),
    (RANGE, _range),
    (SECURITY, _security),
    (POLICY, _policy),
    (WEBHOOK, _policy),
    (re.compile("because it is being terminated"), _ending),
    (RIGHT, _right),
)


def _pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _bare(resource: str) -> str:
    return resource.removeprefix("requests.").removeprefix("limits.")


def _thing(resource: str) -> str:
    bare = _bare(resource)
    return "GPUs" if bare == GPU else THINGS.get(bare, bare)
