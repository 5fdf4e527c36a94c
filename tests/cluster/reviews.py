"""What the API server itself says that an account may do, and what it says to an account that does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx

from torpor_hub.cluster.access import Access
from torpor_hub.podspecs.rights import Right

Json = dict[str, Any]
REVIEWS = "/apis/authorization.k8s.io/v1"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
# Verbs that no kind lists, and what they are on.
SPECIAL = (
    *(("rbac.authorization.k8s.io", kind, verb) for kind in ("roles", "clusterroles") for verb in ("bind", "escalate")),
    *(("", kind, "impersonate") for kind in ("users", "groups", "serviceaccounts")),
    *(("certificates.k8s.io", "signers", verb) for verb in ("approve", "sign")),
)
AT_ONCE = 8
PATCH = {"content-type": "application/merge-patch+json"}


class Allowed(NamedTuple):
    """One thing that may be done: a verb on a kind of a group; with a ``name``, to that object alone."""

    group: str
    resource: str
    verb: str
    name: str = ""


def of_rights(rights: Iterable[Right]) -> set[Allowed]:
    """Return all that rights of the table amount to."""
    return set(_all_of([right.rule() for right in rights]))


class Reviewer:
    """Asks as the cluster's administrator."""

    def __init__(self, reach: Access) -> None:
        self._client = httpx.Client(base_url=reach.server, verify=reach.tls, timeout=30)

    def close(self) -> None:
        self._client.close()

    def rules(self, account: str, namespace: str) -> set[Allowed]:
        """Return all that an account may do in a namespace: a full name, ``system:serviceaccount:<namespace>:<name>``."""
        content = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        status = self._post(f"{REVIEWS}/selfsubjectrulesreviews", content, account)["status"]
        assert not status["incomplete"], status
        paths = {
            Allowed("", path, verb)
            for rule in status["nonResourceRules"]
            for path in rule["nonResourceURLs"]
            for verb in rule["verbs"]
        }
        return paths | set(_all_of(status["resourceRules"]))

    def allowed(self, account: str, namespace: str) -> set[Allowed]:
        """Return what of everything that the cluster knows an account may do, asked one by one; no namespace: in all of them."""
        known = [Allowed(group, resource, verb) for group, resource in self._kinds() for verb in VERBS]
        asked = [*known, *(Allowed(*special) for special in SPECIAL)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = pool.map(lambda what: self._is_allowed(account, namespace, what), asked)
            return {what for what, answer in zip(asked, answers, strict=True) if answer}

    def refusal(self, account: str, method: str, path: str, content: Json | None = None) -> str:
        """Return why an account is refused a change; empty when it is not. Nothing is changed."""
        headers = {"Impersonate-User": account, **(PATCH if method == "PATCH" else {})}
        answer = self._client.request(method, path, params={"dryRun": "All"}, json=content, headers=headers)
        return "" if answer.is_success else str(answer.json()["message"])

    def _kinds(self) -> Iterator[tuple[str, str]]:
        groups = self._client.get("/apis").json()["groups"]
        places = {group["name"]: f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups}
        for group, place in {"": "/api/v1", **places}.items():
            for kind in self._client.get(place).json()["resources"]:
                yield group, kind["name"]

    def _is_allowed(self, account: str, namespace: str, what: Allowed) -> bool:
        resource, _, part = what.resource.partition("/")
        asked = {
            "namespace": namespace,
            "group": what.group,
            "resource": resource,
            "subresource": part,
            "verb": what.verb,
        }
        own = account.split(":")[2]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{own}", "system:authenticated"]
        spec = {"user": account, "groups": groups, "resourceAttributes": asked}
        content = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return bool(self._post(f"{REVIEWS}/subjectaccessreviews", content)["status"]["allowed"])

    def _post(self, path: str, content: Json, account: str = "") -> Json:
        headers = {"Impersonate-User": account} if account else {}
        answer = self._client.post(path, json=content, headers=headers)
        answer.raise_for_status()
        return dict(answer.json())


def _all_of(rules: Iterable[Mapping[str, Any]]) -> Iterator[Allowed]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield from (Allowed(group, resource, verb, name) for name in rule.get("resourceNames") or ("",))
