"""The how-to of an installation, as its reader follows it: its own values and its own commands, in their order."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.cluster import kubectl, release
from tests.cluster.site import ClusterSite
from tests.support.people import Person
from tests.support.platform import free_port
from torpor_hub.cluster.access import Access

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "install-on-a-cluster.md"
ANSWERS_WITHIN_S = 60.0
# The node that the page empties, and the one of the test cluster on which the platform itself is not.
ITS_NODE, NODE = "node-1", "torpor-1"


def section(title: str) -> str:
    """Return the text of the page from this heading to the next one."""
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)


class Reader:
    """Somebody who follows the page, with a registry and images of their own."""

    def __init__(self, folder: Path, built: dict[str, dict[str, str]]) -> None:
        self.values = folder / "my-values.yaml"
        self.port = free_port()
        content = yaml.safe_load(blocks("Install", "yaml")[0])
        content["registry"] = {"host": os.environ[release.REGISTRY], "insecure": True}
        usual = release.values(os.environ[release.REGISTRY], built, "/")
        self.values.write_text(yaml.safe_dump(content | {key: usual[key] for key in ("images", "agent")}))

    def runs(self, title: str) -> list[str]:
        """Run a section's commands, and return what each printed."""
        return [self._run(line) for block in blocks(title, "bash") for line in block.strip().splitlines()]

    def signs_in(self, user: str, password: str) -> bool:
        """Return whether a port-forward as the page has it leads to a page where this password is right."""
        line = next(
            line for block in blocks("Install", "bash") for line in block.splitlines() if "port-forward" in line
        )
        forward = subprocess.Popen(line.replace("8000:", f"{self.port}:").split(), stdout=subprocess.DEVNULL)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", follow_redirects=True, timeout=30) as client:
                _wait_for(client)
                form = {"username": user, "password": password, "_xsrf": client.cookies["_xsrf"]}
                return client.post("/hub/login", data=form).url.path.startswith("/services/torpor")
        finally:
            forward.terminate()
            forward.wait()

    def _run(self, line: str) -> str:
        if "port-forward" in line:
            return ""
        own = line.replace("my-values.yaml", str(self.values)).replace(ITS_NODE, NODE).split()
        ended = subprocess.run(own, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{line}\n{ended.stderr[-2000:]}"
        return ended.stdout


def _wait_for(client: httpx.Client) -> None:
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while True:
        try:
            client.get("/hub/login").raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the port-forward leads nowhere"
            time.sleep(0.5)
        else:
            return


@pytest.fixture
def reader(reach: Access, tmp_path: Path) -> Iterator[Reader]:
    """A reader on a cluster where nobody has installed anything."""
    release.await_gone(release.TORPOR)
    assert not kubectl.items("namespaces", "--field-selector", f"metadata.name={release.TORPOR.namespace}")
    yield Reader(tmp_path, release.images(os.environ[release.REGISTRY]))
    release.uninstall(release.TORPOR)


def test_who_follows_the_page_has_a_platform_and_can_be_rid_of_it(reader: Reader) -> None:
    password = reader.runs("Install")[3].strip()
    assert reader.signs_in("ada", password)
    work_goes_on_in_a_workspace_that_slept(password)
    before = secrets_of_release()
    reader.runs("Upgrade")
    assert secrets_of_release() == before
    assert reader.signs_in("ada", password)

    reader.runs("Empty a node")
    node = kubectl.get("node", NODE)
    assert not node["spec"].get("unschedulable"), "the node takes workspaces again"
    assert "torpor/drain" not in node["metadata"]["labels"]

    uninstalled, *removals = [line for block in blocks("Uninstall", "bash") for line in block.strip().splitlines()]
    reader._run(uninstalled)
    claims = [thing["metadata"] for thing in kubectl.items("pvc", "-n", "torpor")]
    kept = {claim["name"] for claim in claims if "deletionTimestamp" not in claim}
    assert kept == {"torpor-server", "torpor-hub"}
    assert kubectl.items("pvc", "-n", "torpor-research"), "homes are kept"
    install = next(line for block in blocks("Install", "bash") for line in block.splitlines() if "helm install" in line)
    reader._run(install)
    assert reader.signs_in("ada", password), "what was kept is taken up again"
    reader._run(uninstalled)
    _check_removals(removals)


def work_goes_on_in_a_workspace_that_slept(password: str) -> None:
    """Start a workspace, let it sleep, wake it, and run a job in it, on claims as the chart makes them: for one node at a time."""
    ada = Person(_site(password), "ada")
    workspace = ada.create("first", "research")
    ada.reaches(workspace, "RUNNING")
    (home,), data = kubectl.items("pvc", "-n", "torpor-research"), kubectl.get("pvc", "torpor-data", "-n", "torpor")
    assert [claim["spec"]["accessModes"] for claim in (home, data)] == [["ReadWriteOnce"]] * 2
    with ada.kernel(workspace) as kernel:
        code = (
            "import pathlib, sys\npathlib.Path(sys.prefix, 'installed').touch()\nprint(pathlib.Path('/data').exists())"
        )
        assert kernel.run(code).strip() == "False", "as the page says of the data"
    ada.wished(workspace, desired="asleep")
    ada.reaches(workspace, "ASLEEP")
    ada.wished(workspace, desired="running")
    ada.reaches(workspace, "RUNNING")
    look = "import pathlib, sys; print(pathlib.Path(sys.prefix, 'installed').exists(), pathlib.Path('/data').exists())"
    job = ada.submit(workspace, ["python", "-c", look])
    assert ada.ended(job)["phase"] == "SUCCEEDED", ada.job(job)
    assert ada.job_log(job).split() == ["True", "False"]
    ada.wished(workspace, desired="stopped", discard=True)
    ada.reaches(workspace, "STOPPED")


def _site(password: str) -> ClusterSite:
    of = release.TORPOR
    address = kubectl.get("service", f"{of.fullname}-proxy", "-n", of.namespace)["spec"]["clusterIP"]
    registry = os.environ[release.REGISTRY]
    return ClusterSite(f"http://{address}/", of.namespace, of.prefix, registry, {"ada": password}, of.fullname)


def _check_removals(removals: list[str]) -> None:
    """Run the removals where what they select is this release's alone; other tests' tenants carry the same labels."""
    for line in removals:
        kind, *words = line.removeprefix("kubectl delete ").split()
        found = (
            kubectl.items(kind, *words)
            if "--selector" in words
            else kubectl.items(kind, "--field-selector", f"metadata.name={words[0]}")
        )
        names = [thing["metadata"]["name"] for thing in found]
        own = [name for name in names if name == "torpor" or name.startswith("torpor-")]
        assert own or kind == "persistentvolume", line
        if own:
            kubectl.run("delete", kind, *own, "--wait=true", within_s=300)


def secrets_of_release() -> dict[str, str]:
    return dict(kubectl.get("secret", "torpor-secrets", "-n", "torpor")["data"])
