"""Which account of a pull secret reads an image: the one that a node would take."""

from __future__ import annotations

import base64
import json

import pytest

from tests.support import registry as registries
from torpor_hub.errors import ImageMissing
from torpor_hub.oci import references
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Account, Address, read_accounts, reader_of


@pytest.mark.parametrize(
    ("names", "image", "expected"),
    [
        pytest.param(["h.example"], "h.example/team/image:1", "h.example", id="host"),
        pytest.param(["h.example"], "other.example/team/image", None, id="another host"),
        pytest.param(["h.example"], "sub.h.example/image", None, id="a host below is another host"),
        pytest.param(["https://h.example"], "h.example/image", "https://h.example", id="scheme"),
        pytest.param(["http://h.example/"], "h.example/image", "http://h.example/", id="scheme and slash"),
        pytest.param(["https://h.example/v2/"], "h.example/image", "https://h.example/v2/", id="version of an API"),
        pytest.param(["h.example:5000"], "h.example:5000/image", "h.example:5000", id="port"),
        pytest.param(["h.example"], "h.example:5000/image", None, id="no port is not any port"),
        pytest.param(["h.example:5000"], "h.example:5001/image", None, id="another port"),
        pytest.param(["h.example/team"], "h.example/team/image", "h.example/team", id="path"),
        pytest.param(["h.example/team/"], "h.example/teams/image", None, id="another path"),
        pytest.param(["h.example", "h.example/team"], "h.example/team/image", "h.example/team", id="the longer path"),
        pytest.param(["h.example/team", "h.example"], "h.example/other/image", "h.example", id="the path that fits"),
        pytest.param(["*.example"], "h.example/image", "*.example", id="star"),
        pytest.param(["*.example"], "a.h.example/image", None, id="a star is one part"),
        pytest.param(["a-*.h.example:5000"], "a-b.h.example:5000/image", "a-*.h.example:5000", id="star in a part"),
        pytest.param(["*.example/team", "h.example"], "h.example/team/image", "h.example", id="full before star"),
        pytest.param(["https://index.docker.io/v1/"], "debian", "https://index.docker.io/v1/", id="public hub"),
        pytest.param(["docker.io", "index.docker.io"], "docker.io/team/image", "docker.io", id="its own name first"),
        pytest.param(["index.docker.io"], "h.example/image", None, id="the hub's is for the hub"),
    ],
)
def test_the_most_particular_name_wins(names: list[str], image: str, expected: str | None) -> None:
    accounts = {name: Account(name, "x") for name in names}
    found = reader_of(accounts, references.parse(image).name)
    assert (found.username if found else None) == expected


def test_of_two_accounts_for_one_registry_the_first_counts() -> None:
    accounts = {"https://h.example": Account("first", "x"), "h.example": Account("second", "x")}
    assert reader_of(accounts, "h.example/image") == Account("first", "x")


def test_a_docker_config_says_name_and_password_together_or_apart() -> None:
    together = base64.b64encode(b"reader:a:b").decode()
    entries = {
        "together.example": {"auth": together},
        "bare.example": {"auth": together.rstrip("=")},
        "apart.example": {"username": "reader", "password": "a:b", "email": "reader@example.org"},
        "kept-in-a-helper.example": {},
    }
    account = Account("reader", "a:b")
    assert read_accounts(json.dumps({"auths": entries, "credsStore": "desktop"})) == {
        **{"together.example": account, "bare.example": account, "apart.example": account}
    }
    assert "a:b" not in repr(account)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"h.example": {"auth": "eDp5"}}', '{"auths": {"h.example": {"auth": "e"}}}']
)
def test_what_is_no_docker_config_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_accounts(text)


@pytest.mark.parametrize(
    ("username", "kept_in", "doubt"),
    [
        ("", "a note", " If it is not for everybody, have a note hold an account for {host}."),
        ("reader", "a note", ""),
        ("", "", ""),
    ],
)
def test_what_is_not_there_for_nobody_may_be_there_for_an_account(username: str, kept_in: str, doubt: str) -> None:
    with registries.fake() as registry:
        client = Registry(Address(registry.host, True, username, "x", kept_in))
        with pytest.raises(ImageMissing) as caught:
            client.resolve("team/image", "1")
        client.close()
    said = f"There is no image 1 in {registry.host}/team/image.{doubt.format(host=registry.host)}"
    assert str(caught.value) == said
