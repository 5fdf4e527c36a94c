"""Which environment a workspace starts with: the current one, the one before, the profile's own."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wheels
from tests.support.people import Person
from tests.support.platform import platform, until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]
FIND = """
from importlib.metadata import PackageNotFoundError, version
try:
    print(version("{0}"))
except PackageNotFoundError:
    print("none")
"""


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with platform(tmp_path_factory.mktemp("choices"), prefix="/z/") as site:
        yield Person(site, "ada")


def install(ada: Person, workspace: str, wheel: Path) -> None:
    with ada.kernel(workspace) as kernel:
        said = kernel.run(f"%pip install --no-index --no-deps --force-reinstall {wheel}")
    assert "Successfully installed" in said


def found(ada: Person, workspace: str, package: str) -> str:
    with ada.kernel(workspace) as kernel:
        return kernel.run(FIND.format(package)).strip()


def sleep(ada: Person, workspace: str) -> None:
    ada.wished(workspace, desired="asleep")
    ada.reaches(workspace, "ASLEEP")


def start(ada: Person, workspace: str, environment: str) -> None:
    ada.wished(workspace, desired="running", environment=environment)
    ada.reaches(workspace, "RUNNING")


@pytest.mark.slow
def test_a_start_has_the_environment_that_was_asked_for(ada: Person, tmp_path: Path) -> None:
    package = "".join(random.choices(string.ascii_lowercase, k=8))
    workspace = ada.create("choices", "research")
    ada.reaches(workspace, "RUNNING")
    for version in ("1.0", "2.0"):
        install(ada, workspace, wheels.make(tmp_path, package, version, 1))
        sleep(ada, workspace)
        start(ada, workspace, "current")
    assert found(ada, workspace, package) == "2.0"

    sleep(ada, workspace)
    start(ada, workspace, "previous")
    assert found(ada, workspace, package) == "1.0"

    install(ada, workspace, wheels.make(tmp_path, package, "3.0", 1))
    unconfirmed = ada.wish(workspace, desired="stopped")
    assert (unconfirmed.status_code, unconfirmed.json()["pointer"]) == (422, "/spec/discard")
    ada.wished(workspace, desired="stopped", discard=True)
    assert "without saving" in ada.reaches(workspace, "STOPPED")["message"]
    start(ada, workspace, "current")
    assert found(ada, workspace, package) == "2.0"

    sleep(ada, workspace)
    start(ada, workspace, "profile")
    assert found(ada, workspace, package) == "none"


def test_a_workspace_that_nobody_changed_sleeps_without_a_new_image(ada: Person) -> None:
    workspace = ada.create("same", "research")
    ada.reaches(workspace, "RUNNING")
    sleep(ada, workspace)
    start(ada, workspace, "current")
    sleep(ada, workspace)
    digests = {row["digest"] for row in ada.get(f"/workspaces/{workspace}/checkpoints")["items"]}
    assert len(digests) == 1


def test_a_deleted_workspace_leaves_its_home_and_nothing_else(ada: Person) -> None:
    workspace = ada.create("gone", "research")
    ada.reaches(workspace, "RUNNING")
    sleep(ada, workspace)
    start(ada, workspace, "current")
    index = ada.site.state / "images" / "index.json"
    assert workspace in index.read_text()
    home = ada.site.state / "homes" / "research" / "ada"
    (home / "kept.txt").write_text("mine")
    assert ada.client.delete(f"/workspaces/{workspace}").status_code == 202
    until(lambda: ada.client.get(f"/workspaces/{workspace}").status_code == 404, 60, "the end of the workspace")
    assert (home / "kept.txt").read_text() == "mine"
    assert not (ada.site.state / "workspaces" / workspace).exists()
    assert workspace not in ada.site.held()
    assert workspace not in index.read_text()
    assert ada.site.rows("SELECT id FROM checkpoints WHERE workspace_id = ?", workspace) == []
