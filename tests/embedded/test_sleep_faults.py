"""Sleeps that go wrong or are called off: the workspace runs on, says why, and has lost nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wheels
from tests.support.failpoints import Failpoints
from tests.support.kernels import Kernel
from tests.support.people import Person
from tests.support.platform import Platform, platform, until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]
SOON_S = 30


@pytest.fixture(scope="module")
def failpoints(tmp_path_factory: pytest.TempPathFactory) -> Failpoints:
    return Failpoints(tmp_path_factory.mktemp("failpoints"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, failpoints: Failpoints) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    with platform(folder, prefix="/sleepers/", TORPOR_FAILPOINTS=str(failpoints.folder)) as running:
        yield running


@pytest.fixture(scope="module")
def ada(site: Platform) -> Person:
    return Person(site, "ada")


@pytest.fixture(scope="module")
def workspace(ada: Person) -> str:
    made = ada.create("careful", "research")
    ada.reaches(made, "RUNNING")
    return made


@pytest.fixture(autouse=True)
def disarmed(failpoints: Failpoints) -> Iterator[None]:
    yield
    for file in failpoints.folder.glob("[a-z]*.*"):
        if file.name != "hits.log":
            file.unlink()


def install(kernel: Kernel, folder: Path, name: str, value: int) -> None:
    """Install a package of its own into the workspace."""
    wheel = wheels.make(folder, name, "1.0", value)
    said = kernel.run(f"%pip install --no-index --no-deps {wheel}")
    assert f"Successfully installed {name}-1.0" in said


def blobs(site: Platform) -> set[Path]:
    """Return every blob of the images."""
    return set((site.state / "images/blobs/sha256").iterdir())


@pytest.mark.parametrize("point", ["capture.layer_written", "capture.manifest_written"])
def test_a_sleep_whose_image_does_not_read_back_fails_and_loses_nothing(
    site: Platform, ada: Person, workspace: str, failpoints: Failpoints, tmp_path: Path, point: str
) -> None:
    package = point.partition(".")[2].replace("_", "")
    with ada.kernel(workspace) as kernel:
        install(kernel, tmp_path, package, 7)
        before, hits = blobs(site), failpoints.hits(point)
        saved = ada.status(workspace)["checkpoint"]
        failpoints.arm(point, "pause")
        ada.wished(workspace, desired="asleep")
        failpoints.reached(point, hits, SOON_S)
        layer = max(blobs(site) - before, key=lambda file: file.stat().st_size)
        content = bytearray(layer.read_bytes())
        content[len(content) // 2] ^= 1
        layer.write_bytes(content)
        failpoints.disarm(point)
        until(lambda: ada.status(workspace)["phase"] == "RUNNING", SOON_S, "the end of the sleep")
        status = ada.status(workspace)
        assert status["reason"] == "NOT_READ_BACK"
        assert "The sleep failed, so everything runs on" in status["message"]
        assert layer.name in status["message"]
        assert status["next_step"]
        assert "The sleep failed, so everything runs on" in ada.page(f"workspaces/{workspace}")
        assert status["checkpoint"] == saved
        assert kernel.run(f"import {package}; print({package}.VALUE)") == "7\n"
    ada.wished(workspace, desired="asleep")
    ada.reaches(workspace, "ASLEEP")
    assert not (site.state / "workspaces" / workspace / "env").exists()
    ada.wished(workspace, desired="running")
    ada.reaches(workspace, "RUNNING")
    with ada.kernel(workspace) as kernel:
        assert kernel.run(f"import {package}; print({package}.VALUE)") == "7\n"


def test_a_cancelled_sleep_thaws_at_once_with_every_variable(
    site: Platform, ada: Person, workspace: str, failpoints: Failpoints
) -> None:
    with ada.kernel(workspace) as kernel:
        kernel.run("held = list(range(1000))")
        hits = failpoints.hits("agent.frozen")
        failpoints.arm("agent.frozen", "pause")
        ada.wished(workspace, desired="asleep")
        failpoints.reached("agent.frozen", hits, SOON_S)
        assert frozen(site)
        asked = time.monotonic()
        ada.wished(workspace, desired="running")
        until(lambda: not frozen(site), SOON_S, "the thaw")
        thawed_s = time.monotonic() - asked
        failpoints.disarm("agent.frozen")
        assert thawed_s < 5, "a cancel thaws within a second where nothing else runs"
        assert kernel.run("print(sum(held))") == "499500\n"
    status = ada.reaches(workspace, "RUNNING")
    assert status["message"] == "The sleep was cancelled; everything runs on."
    assert status["operation"] is None


def test_a_reaper_killed_while_its_workspace_is_frozen_leaves_nothing_frozen(
    site: Platform, ada: Person, workspace: str, failpoints: Failpoints
) -> None:
    with ada.kernel(workspace) as kernel:
        kernel.run("held = 1")
    hits = failpoints.hits("agent.frozen")
    failpoints.arm("agent.frozen", "pause")
    ada.wished(workspace, desired="asleep")
    failpoints.reached("agent.frozen", hits, SOON_S)
    record = json.loads((site.state / "workspaces" / workspace / "run.json").read_text())
    os.kill(int(record["handle"].split("/")[1]), signal.SIGKILL)
    ada.wished(workspace, desired="running")
    failpoints.disarm("agent.frozen")
    status = ada.reaches(workspace, "STOPPED", 60)
    assert status["message"]
    assert (frozen(site), site.held()) == ([], [])
    ada.wished(workspace, desired="running")
    ada.reaches(workspace, "RUNNING")


@pytest.mark.parametrize("point", ["spawner.granted", "spawner.launched"])
def test_a_wake_goes_on_when_the_hub_is_killed_in_it(
    ada: Person, workspace: str, failpoints: Failpoints, point: str
) -> None:
    ada.wished(workspace, desired="asleep")
    ada.reaches(workspace, "ASLEEP")
    failpoints.arm(point, "kill")
    ada.wished(workspace, desired="running")
    until(lambda: not (failpoints.folder / point).exists(), SOON_S, f"a kill at {point}")
    until(lambda: ada.status(workspace)["phase"] != "WAKING", 120, "the end of the wake")
    status = ada.status(workspace)
    assert (status["phase"], status["reason"]) == ("RUNNING", "")
    with ada.kernel(workspace) as kernel:
        assert kernel.run("print('awake')") == "awake\n"


def frozen(site: Platform) -> list[int]:
    """Return the stopped processes of the platform."""
    return [pid for pid in site.processes() if state_of(pid) == "T"]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
