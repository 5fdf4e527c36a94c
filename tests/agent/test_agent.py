"""One capture from its claim to its end: real folders and images, a freezer that records, an api that answers as told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from torpor_hub.agent.folders import FolderGround
from torpor_hub.agent.ground import Claim
from torpor_hub.agent.tasks import Tasks
from torpor_hub.agent.work import Agent
from torpor_hub.capture.base import CaptureResult, Prepared
from torpor_hub.capture.directory import DirectoryCapture
from torpor_hub.errors import PlaceError
from torpor_hub.oci.layout import Layout

REPOSITORY = "torpor/workspaces/research/ws-1"
TAKEN_OVER = httpx.Response(409, json={"detail": "Another agent has it."})
WITHIN_S = 30
LARGE_BYTES = 48 * 1024**2


class RecordingFreezer:
    """Freezes nothing and remembers what it was asked."""

    def __init__(self, *, works: bool = True) -> None:
        self.asked: list[str] = []
        self._works = works

    @property
    def frozen(self) -> bool:
        """Whether the workspace would stand still now."""
        return bool(self.asked) and self.asked[-1] == "freeze"

    async def freeze(self, workspace_root: Path, handle: str, thaw_after_s: float) -> None:
        assert workspace_root.is_dir()
        self._thaw_after_s = thaw_after_s
        self.asked.append("freeze")
        if not self._works:
            raise PlaceError(f"{handle} does not stop.")

    async def left_s(self, workspace_root: Path, handle: str) -> float:
        if not self.frozen:
            raise PlaceError(f"{handle} was thawed.")
        return self._thaw_after_s

    async def thaw(self, workspace_root: Path, handle: str) -> None:
        del workspace_root, handle
        self.asked.append("thaw")


@dataclass
class Api:
    """The api's side of captures: answers heartbeats and reports as told, and keeps the reports."""

    stay_frozen: bool = True
    cancel: bool = False
    heartbeat: httpx.Response | None = None
    away: bool = False
    once_frozen: RecordingFreezer | None = None
    reports: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        kind = request.url.path.rpartition("/")[2]
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        if kind == "component-tokens":
            return httpx.Response(200, json={"token": "torpor.agent"})
        if kind == "progress" and self.once_frozen is not None and not self.once_frozen.frozen:
            return httpx.Response(200, json={"cancel": False})
        if kind == "progress":
            return self.heartbeat or httpx.Response(200, json={"cancel": self.cancel})
        self.reports.append((kind, json.loads(request.content)))
        return httpx.Response(200, json={"stay_frozen": self.stay_frozen} if kind == "result" else {})

    def results(self) -> list[dict[str, Any]]:
        return [body for kind, body in self.reports if kind == "result"]

    def failures(self) -> list[str]:
        return [body["code"] for kind, body in self.reports if kind == "failure"]


class DamagingLayout(Layout):
    """Writes an image, and then does to its layer what a bad disk does."""

    damage: Callable[[Path], object]

    def put_manifest(self, repository: str, tag: str, manifest: bytes) -> str:
        digest = super().put_manifest(repository, tag, manifest)
        layer = json.loads(manifest)["layers"][0]["digest"].removeprefix("sha256:")
        self.damage(self._blobs / layer)
        return digest


class NeverPrepared(DirectoryCapture):
    """Is still copying what is large when somebody comes back."""

    async def prepare(self, *_: object, **__: object) -> Prepared:
        await asyncio.Event().wait()
        raise AssertionError


class ThawsMeanwhile(DirectoryCapture):
    """Saves a workspace that somebody else thaws in the middle."""

    def __init__(self, layout: Layout, freezer: RecordingFreezer) -> None:
        super().__init__(layout)
        self._freezer = freezer

    async def verify(self, repository: str, digest: str) -> None:
        await super().verify(repository, digest)
        self._freezer.asked.append("thaw")


class BreaksOffWriting(DirectoryCapture):
    """Saves all of it, as far as it goes; the disk is full before the end."""

    async def capture(self, *_: object, **__: object) -> CaptureResult:
        raise OSError(28, "No space left on device")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    env = tmp_path / "ws-1" / "env"
    (env / "lib").mkdir(parents=True)
    (env / "lib" / "module.py").write_text("x = 1\n")
    (env / "lib" / "native.so").write_bytes(os.urandom(200_000))
    return env.parent


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "images")


def claim(root: Path, kind: str = "sleep", **more: Any) -> Claim:
    content: Mapping[str, Any] = {
        "operation": "op-1",
        "kind": kind,
        "fence": 3,
        "workspace": "ws-1",
        "handle": "17:4",
        "root": str(root),
        "source": str(root / "env"),
        "repository": REPOSITORY,
        "tag": "op-1-3",
        "parent_digest": None,
        "annotations": {},
        "thaw_after_s": 30,
        "heartbeat_s": 0.01,
        **more,
    }
    return Claim(content)


def work(layout: Layout, freezer: RecordingFreezer, api: Api, wanted: Claim, *, capture: Any = None) -> None:
    """Do one capture to its end."""

    async def run() -> None:
        tasks = Tasks("http://api/v1", lambda: "proof", transport=httpx.MockTransport(api.answer))
        ground = FolderGround(capture or DirectoryCapture(layout), freezer)
        agent = Agent(tasks, ground, name="a", node="n")
        async with asyncio.timeout(WITHIN_S):
            await agent.work(wanted)
        await tasks.close()

    asyncio.run(run())


def test_a_sleep_freezes_saves_and_leaves_the_workspace_frozen_for_its_removal(root: Path, layout: Layout) -> None:
    api, freezer = Api(), RecordingFreezer()
    work(layout, freezer, api, claim(root))
    (result,) = api.results()
    assert (freezer.asked, api.failures(), result["fence"], result["changed"]) == (["freeze"], [], 3, True)
    assert layout.verify(REPOSITORY, result["digest"]).layers[0].size_bytes > 200_000


def test_a_result_that_the_platform_does_not_want_any_more_thaws(root: Path, layout: Layout) -> None:
    api, freezer = Api(stay_frozen=False), RecordingFreezer()
    work(layout, freezer, api, claim(root))
    assert (len(api.results()), freezer.frozen) == (1, False)


def flip(layer: Path) -> None:
    content = bytearray(layer.read_bytes())
    content[len(content) // 2] ^= 1
    layer.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [flip, lambda layer: os.truncate(layer, layer.stat().st_size - 1), Path.unlink],
    ids=["one bit flipped", "cut short", "gone"],
)
def test_an_image_that_does_not_read_back_is_never_reported(
    root: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    layout = DamagingLayout(tmp_path / "bad")
    layout.damage = damage
    api, freezer = Api(), RecordingFreezer()
    work(layout, freezer, api, claim(root))
    assert (api.results(), api.failures(), freezer.frozen) == ([], ["NOT_READ_BACK"], False)


def test_a_cancel_in_the_answer_to_a_heartbeat_ends_the_copy_and_thaws(root: Path, layout: Layout) -> None:
    (root / "env" / "large").write_bytes(os.urandom(LARGE_BYTES))
    freezer = RecordingFreezer()
    api = Api(cancel=True, once_frozen=freezer)
    work(layout, freezer, api, claim(root))
    assert (api.results(), api.failures(), freezer.asked) == ([], ["CANCELLED"], ["freeze", "thaw"])


def test_a_cancel_before_the_freeze_leaves_everything_running(root: Path, layout: Layout) -> None:
    api, freezer = Api(cancel=True), RecordingFreezer()
    work(layout, freezer, api, claim(root), capture=NeverPrepared(layout))
    assert (api.results(), api.failures(), "freeze" in freezer.asked) == ([], ["CANCELLED"], False)


def test_a_workspace_that_was_thawed_before_it_was_saved_is_not_reported_as_saved(root: Path, layout: Layout) -> None:
    """Its deadline came, or another agent did: what was read is not all of one moment."""
    api, freezer = Api(), RecordingFreezer()
    work(layout, freezer, api, claim(root), capture=ThawsMeanwhile(layout, freezer))
    assert (api.results(), api.failures(), freezer.frozen) == ([], ["NOT_FROZEN"], False)


def test_the_platform_is_told_for_how_long_the_workspace_stands_still(root: Path, layout: Layout) -> None:
    api, freezer = Api(), RecordingFreezer()
    work(layout, freezer, api, claim(root, thaw_after_s=30))
    (result,) = api.results()
    assert 0 < result["frozen_s"] <= 30


def test_a_claim_that_was_taken_over_is_left_to_the_one_who_has_it(root: Path, layout: Layout) -> None:
    (root / "env" / "large").write_bytes(os.urandom(LARGE_BYTES))
    freezer = RecordingFreezer()
    api = Api(heartbeat=TAKEN_OVER, once_frozen=freezer)
    work(layout, freezer, api, claim(root))
    assert (api.reports, freezer.asked) == ([], ["freeze"])


def test_an_api_that_is_away_does_not_leave_the_workspace_frozen(root: Path, layout: Layout) -> None:
    api, freezer = Api(away=True), RecordingFreezer()
    work(layout, freezer, api, claim(root, thaw_after_s=0.2))
    assert (api.reports, freezer.asked) == ([], ["freeze", "thaw"])


def test_a_workspace_that_cannot_be_frozen_is_not_saved(root: Path, layout: Layout) -> None:
    api, freezer = Api(), RecordingFreezer(works=False)
    work(layout, freezer, api, claim(root))
    assert (api.results(), api.failures(), freezer.frozen) == ([], ["NOT_FROZEN"], False)


def test_a_full_disk_ends_the_sleep_and_everything_runs_on(root: Path, layout: Layout) -> None:
    api, freezer = Api(), RecordingFreezer()
    work(layout, freezer, api, claim(root), capture=BreaksOffWriting(layout))
    assert (api.results(), api.failures(), freezer.frozen) == ([], ["FAILED"], False)


def test_a_checkpoint_for_a_job_never_stops_a_workspace_that_holds_still(root: Path, layout: Layout) -> None:
    api, freezer = Api(stay_frozen=False), RecordingFreezer()
    work(layout, freezer, api, claim(root, "checkpoint"))
    assert (len(api.results()), "freeze" in freezer.asked) == (1, False)


def test_a_program_that_ends_in_the_middle_thaws_first(root: Path, layout: Layout) -> None:
    (root / "env" / "large").write_bytes(os.urandom(LARGE_BYTES))
    api, freezer = Api(), RecordingFreezer()

    async def run() -> None:
        tasks = Tasks("http://api/v1", lambda: "proof", transport=httpx.MockTransport(api.answer))
        working = asyncio.create_task(
            Agent(tasks, FolderGround(DirectoryCapture(layout), freezer), name="a", node="n").work(claim(root))
        )
        async with asyncio.timeout(WITHIN_S):
            while not freezer.frozen:
                await asyncio.sleep(0)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        await tasks.close()

    asyncio.run(run())
    assert (api.reports, freezer.asked) == ([], ["freeze", "thaw"])
