from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.podspecs.examples import DIGEST
from torpor_hub.domain import ids
from torpor_hub.domain.names import NAME
from torpor_hub.errors import ClusterError
from torpor_hub.podspecs import names

# What an API server takes as a name of a namespace, and as the value of a label.
RFC_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
RELEASE = r"[a-z0-9]([a-z0-9.-]{0,51}[a-z0-9])?"
ANY_ID = st.sampled_from(["ws", "job", "usr", "ten", "src"]).map(ids.new)


@given(st.from_regex(NAME, fullmatch=True))
def test_every_tenant_has_a_namespace_that_a_cluster_takes(tenant: str) -> None:
    assert RFC_1123.fullmatch(names.namespace("torpor-", tenant))


@given(ANY_ID, st.integers(1, 999))
def test_every_id_makes_names_and_labels_that_a_cluster_takes(some_id: str, attempt: int) -> None:
    made = (
        names.pod(some_id),
        names.job(f"{some_id}-a{attempt}"),
        names.home_claim(some_id),
        names.data_claim(some_id),
    )
    assert all(RFC_1123.fullmatch(name) for name in made)
    labels = names.managed_labels("workspace", some_id, user=some_id, attempt=f"{some_id}-a{attempt}")
    assert all(VALUE.fullmatch(value) for value in labels.values())
    assert labels["torpor/user"] == some_id


@given(st.text())
def test_a_text_of_people_never_becomes_a_name(text: str) -> None:
    try:
        name = names.pod(text)
    except ClusterError as error:
        assert "cannot name an object" in str(error)
    else:
        assert name == text
        assert RFC_1123.fullmatch(name)


@pytest.mark.parametrize("tenant", ["", "Research", "a b", "x" * 31, "kube/system"])
def test_what_cannot_be_a_tenants_name_has_no_namespace(tenant: str) -> None:
    with pytest.raises(ClusterError, match="cannot be a tenant's name"):
        names.namespace("torpor-", tenant)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True), st.from_regex(RELEASE, fullmatch=True))
def test_an_installations_mark_is_a_value_that_a_label_can_have(namespace: str, release: str) -> None:
    assert VALUE.fullmatch(names.instance(namespace, release))


def test_two_tenants_never_share_the_volume_of_a_source() -> None:
    assert names.data_volume("torpor-a", "src-1") != names.data_volume("torpor-b", "src-1")


def test_an_image_is_named_by_digest_or_not_at_all() -> None:
    assert names.image("host:5000", "torpor/profiles/small", DIGEST) == f"host:5000/torpor/profiles/small@{DIGEST}"
    with pytest.raises(ClusterError, match="'latest' is not the digest"):
        names.image("host:5000", "torpor/profiles/small", "latest")


def test_a_selector_finds_only_what_the_platform_made() -> None:
    assert names.selector() == "app.kubernetes.io/managed-by=torpor"
    assert names.selector(workspace="ws-1") == "app.kubernetes.io/managed-by=torpor,torpor/workspace=ws-1"
