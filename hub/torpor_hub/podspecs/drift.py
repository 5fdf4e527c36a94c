"""Whether an object on the cluster is what it should be: the wish and what was found in, the difference out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torpor_hub.podspecs.quantities import parse

Json = dict[str, Any]
WISH = "torpor/wish"
# What belongs to the platform alone, by kind: whatever else stands there is removed. Of the rest of an object, and of all
# that is not named here, the wish has to be there, and others may add to it.
OWN = {
    "NetworkPolicy": ("spec",),
    "LimitRange": ("spec",),
    "ResourceQuota": ("spec",),
    "PodDisruptionBudget": ("spec",),
    "RoleBinding": ("roleRef", "subjects"),
    "Secret": ("type", "data"),
    "ServiceAccount": ("automountServiceAccountToken",),
}
UNCHANGEABLE = {"RoleBinding": "roleRef", "Secret": "type"}
OF_QUANTITIES = ("LimitRange", "ResourceQuota")
MARKS = ("labels", "annotations")


def marked(wanted: Mapping[str, Any]) -> Json:
    """Return the wish with a mark of itself, by which a later look tells a changed wish from a changed object."""
    metadata = wanted["metadata"]
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    return {**wanted, "metadata": metadata | {"annotations": metadata.get("annotations", {}) | {WISH: digest}}}


def wish_changed(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Return whether ``found`` was made for another wish; without a mark, it was not."""
    mark = _annotations(found).get(WISH)
    return mark is not None and mark != _annotations(wanted).get(WISH)


def differs(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Return whether ``found`` lacks something of the wish, or has something else where all is the platform's own."""
    by_value = wanted["kind"] in OF_QUANTITIES
    if any(_lacks(mark, wanted, found) for mark in MARKS):
        return True
    return any(not _same(wanted.get(part), found.get(part), by_value=by_value) for part in OWN.get(wanted["kind"], ()))


def lacks_labels(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Return whether ``found`` lacks a label of the wish, or has another value of it."""
    return _lacks("labels", wanted, found)


def excess(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Json:
    """Return a merge patch that removes what others added where all is the platform's own; empty where nothing is."""
    parts = {part: _excess(wanted.get(part), found.get(part)) for part in OWN.get(wanted["kind"], ())}
    return {part: change for part, change in parts.items() if change}


def must_be_remade(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Return whether the difference is in what no change can touch."""
    part = UNCHANGEABLE.get(wanted["kind"])
    return part is not None and not _same(wanted.get(part), found.get(part), by_value=False)


def content(thing: Mapping[str, Any]) -> Json:
    """Return what of an object is a matter of wishes: neither its status nor what the server counts in it."""
    metadata = {mark: thing["metadata"].get(mark) or {} for mark in MARKS}
    return {**{key: value for key, value in thing.items() if key not in ("metadata", "status")}, "metadata": metadata}


def _lacks(mark: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    given = found["metadata"].get(mark) or {}
    return any(given.get(key) != value for key, value in wanted["metadata"].get(mark, {}).items())


def _annotations(thing: Mapping[str, Any]) -> Mapping[str, str]:
    return thing["metadata"].get("annotations") or {}


def _same(wanted: Any, found: Any, *, by_value: bool) -> bool:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        one, other = _without_empty(wanted), _without_empty(found)
        return one.keys() == other.keys() and all(_same(one[key], other[key], by_value=by_value) for key in one)
    if isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        pairs = zip(wanted, found, strict=False)
        return len(wanted) == len(found) and all(_same(one, other, by_value=by_value) for one, other in pairs)
    if wanted == found or (not wanted and found is None):
        return True
    return by_value and _value(wanted) is not None and _value(wanted) == _value(found)


def _without_empty(values: Mapping[str, Any]) -> Json:
    """Return the values that say something: the server leaves out an empty list, or a flag that is off."""
    return {key: value for key, value in values.items() if value not in (None, [], {}, ())}


def _excess(wanted: Any, found: Any) -> Json:
    if not isinstance(wanted, Mapping) or not isinstance(found, Mapping):
        return {}
    changes: Json = {key: None for key in _without_empty(found) if key not in wanted}
    for key, value in wanted.items():
        inner = _excess(value, found.get(key))
        if inner:
            changes[key] = inner
    return changes


def _value(text: object) -> object:
    try:
        return parse(str(text))
    except ValueError:
        return None
