"""A release without a registry: all works but what needs a saved environment, and everybody is told so; the same path by the api."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import kubectl
from tests.cluster.release import NODE, REGISTRY, Release, by_digest, images, installed
from tests.cluster.site import ClusterSite
from tests.cluster.test_postgres_and_s3 import install
from tests.support import wheels
from tests.support.people import Person
from torpor_hub.cluster.access import Access

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
RELEASE = Release("bare", "hn")
MIB = 1024**2
SIZE = {"cpu_milli": 250, "memory_bytes": 768 * MIB, "gpu_count": 0}
SEED = {
    "tenants": [{"name": "research", "title": "Research"}],
    "users": [
        {"name": "ada", "tenants": {"research": "member"}},
        {"name": "ben", "tenants": {"research": "member"}},
        {"name": "root", "admin": True, "tenants": {"research": "admin"}},
    ],
    "profiles": [{"name": "tiny", "title": "Tiny", "default": True, "kinds": ["command"], **SIZE}],
}
PROFILES_IMAGE = "Jobs run with the profile's own image, without what you installed"
CRASH = "raise SystemExit('the settings of ben are broken')"


@pytest.fixture(scope="module")
def site(reach: Access) -> Iterator[ClusterSite]:
    values: dict[str, Any] = {
        "registry": {"host": ""},
        "server": {"nodeSelector": {"kubernetes.io/hostname": NODE}, "resources": {"requests": {"cpu": "10m"}}},
        "data": {"enabled": False},
        "seed": SEED,
    }
    with installed("/", RELEASE, **values) as made:
        yield made


def pods(site: ClusterSite) -> list[dict[str, Any]]:
    return kubectl.items("pods", "-n", site.tenant)


def test_people_work_and_are_told_that_nothing_installed_outlasts_a_stop(site: ClusterSite, tmp_path: Path) -> None:
    package = f"p{secrets.token_hex(4)}"
    ada = Person(site, "ada")
    workspace = ada.create("plain", "research", "tiny")
    notes = ada.reaches(workspace, "RUNNING")["notes"]
    assert any("What is installed here is not saved" in note for note in notes)
    image = by_digest(images(os.environ[REGISTRY]), "workspace")
    assert [pod["spec"]["containers"][0]["image"] for pod in pods(site)] == [image]
    install(ada, workspace, wheels.make(tmp_path, package, "1.0", 7))
    a_job_has_the_profiles_image_and_says_so(ada, workspace, package)
    stopping_discards_what_was_installed_and_has_to_be_confirmed(site, ada, workspace)
    ada.wished(workspace, desired="running")
    ada.reaches(workspace, "RUNNING")
    with ada.kernel(workspace) as kernel:
        assert kernel.run(has(package)).strip() == "False"
        assert kernel.run(f"import pathlib; print(*pathlib.Path.home().glob('{package}*'))").strip(), "the home stays"


def has(package: str) -> str:
    return f"import importlib.util; print(importlib.util.find_spec({package!r}) is not None)"


def a_job_has_the_profiles_image_and_says_so(ada: Person, workspace: str, package: str) -> None:
    assert PROFILES_IMAGE in ada.get(f"/job-options?workspace={workspace}")["notice"], "what the form says"
    look = f"def look():\n    import importlib.util\n    return importlib.util.find_spec({package!r}) is not None\n"
    submit = "import torpor\njob = torpor.submit(look)\nprint(job.result(timeout=150), job.status.notice)"
    with ada.kernel(workspace) as kernel:
        assert kernel.run(has(package)).strip() == "True"
        said = kernel.run(look + submit, within_s=180).strip()
    assert said.startswith(f"False {PROFILES_IMAGE}"), said


def stopping_discards_what_was_installed_and_has_to_be_confirmed(
    site: ClusterSite, ada: Person, workspace: str
) -> None:
    begun = [pod["metadata"]["uid"] for pod in pods(site) if pod["metadata"]["name"] == workspace]
    for desired in ("asleep", "stopped"):
        refused = ada.wish(workspace, desired=desired)
        assert refused.status_code == 409, refused.text
        assert "this platform has no image registry to save" in refused.json()["detail"]
    assert "Confirm with `discard: true`" in refused.json()["next_step"]
    assert ada.status(workspace)["phase"] == "RUNNING"
    assert [pod["metadata"]["uid"] for pod in pods(site) if pod["metadata"]["name"] == workspace] == begun
    ada.wished(workspace, desired="stopped", discard=True)
    stopped = ada.reaches(workspace, "STOPPED")
    assert "Ended without saving" in stopped["message"]
    assert (pods(site), site.held()) == ([], [])


def test_the_owner_of_a_server_that_fails_reads_its_last_words_and_nobody_else_does(site: ClusterSite) -> None:
    ben, ada = Person(site, "ben"), Person(site, "ada")
    key = str(site.rows("SELECT id FROM users WHERE name = 'ben'")[0]["id"])
    settings = kubectl.volume(site.tenant, f"home-{key}") / ".jupyter" / "jupyter_server_config.py"
    settings.parent.mkdir()
    settings.write_text(CRASH)
    workspace = ben.create("crashing", "research", "tiny")
    failed = ben.reaches(workspace, "FAILED")
    assert failed["reason"] == "CRASHED", failed
    assert "the settings of ben are broken" in failed["message"]
    assert "the settings of ben are broken" in ben.get(f"/workspaces/{workspace}/log")["text"]
    assert ada.client.get(f"/workspaces/{workspace}/log").status_code == 404
    assert workspace not in [pod["metadata"]["name"] for pod in pods(site)]
    settings.unlink()
    ben.wished(workspace, desired="running")
    ben.reaches(workspace, "RUNNING")
    assert ben.get(f"/workspaces/{workspace}/log")["text"] == ""
    ben.wished(workspace, desired="stopped", discard=True)
    ben.reaches(workspace, "STOPPED")
