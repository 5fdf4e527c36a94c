"""What a spawner of pods does with answers that are wrong, late or missing."""

from __future__ import annotations

import asyncio
import runpy
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.spawner import SpawnException
from traitlets import import_item
from traitlets.config import Config

from tests.podspecs.examples import GIB, HOST, RUN
from tests.spawning.hub_site import HUB_FOLDER, SECRETS
from torpor_hub.cluster.client import Event, Listing
from torpor_hub.cluster.kinds import Json
from torpor_hub.domain.units import Amount
from torpor_hub.errors import ClusterError, ClusterUnavailable, Denied, ObjectExists, ObjectMissing
from torpor_hub.podspecs import names
from torpor_hub.settings import Address, Settings
from torpor_hub.spawning import adoption, hindrances, kube, tokens
from torpor_hub.spawning.configure import configure
from torpor_hub.spawning.kube import TorporKubeSpawner
from torpor_hub.spawning.kube_pod import pod_of
from torpor_hub.spawning.pods import Pods
from torpor_hub.spawning.process import TorporProcessSpawner

NAMESPACE = "torpor-research"
CONFIG = """
apiVersion: v1
kind: Config
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: none, user: {token: none}}]
"""


def token_of(grant_id: str) -> str:
    return tokens.derive("key", "ada", "first", RUN.workspace_id, grant_id)


def settings(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "state_dir": folder,
            "mode": "kubernetes",
            "registry": {"host": HOST},
            **{name: {"port": 1000} for name in ("server", "hub", "proxy", "proxy_api")},
        }
    )


def made(phase: str = "Running", **changes: Any) -> Json:
    """Return the pod of a start as the API server has it."""
    run = replace(RUN, **changes)
    token = token_of(run.grant_id)
    pod = pod_of(run, settings(Path("/tmp")), args=(), environment={}, base_url="/user/ada/first/", token=token)
    pod["metadata"] |= {"uid": f"uid-of-{run.grant_id}", "resourceVersion": "7"}
    pod["status"] = {"phase": phase, "podIP": "127.0.0.1", "containerStatuses": [{"state": {"running": {}}}]}
    return pod


class LyingCluster:
    """An API server whose lists and watches a test decides on."""

    def __init__(self) -> None:
        self.pods: list[Json] = []
        self.fails: Exception | None = None
        self.lists = 0
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def list(self, *_: Any, **__: Any) -> Listing:
        self.lists += 1
        if self.fails is not None:
            raise self.fails
        return Listing(tuple(self.pods), "7")

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Event]:
        while True:
            yield await self._events.get()

    def say_gone(self, pod: Json) -> None:
        """Let the watch report the pod's end, be it true or not."""
        self._events.put_nowait(Event("DELETED", pod))

    async def aclose(self) -> None:
        return None


@pytest.fixture
def cluster_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    file = tmp_path / "kubeconfig"
    file.write_text(CONFIG)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr("kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / tokens.KEY).write_text("key")
    yield


@asynccontextmanager
async def hub_beside(
    cluster: LyingCluster, folder: Path, monkeypatch: pytest.MonkeyPatch, *, handle: str
) -> AsyncIterator[TorporKubeSpawner]:
    """Give the spawner of a hub that has just started, and whose record names ``handle``."""
    seen = Pods(cluster)  # type: ignore[arg-type]
    monkeypatch.setattr(kube, "pods_of_cluster", lambda _: seen)
    platform = SimpleNamespace(settings=settings(folder))
    spawner = TorporKubeSpawner(
        user=SimpleNamespace(name="ada", id=1, url="/user/ada/", db=SimpleNamespace(commit=lambda: None)),
        orm_spawner=SimpleNamespace(name="first", server=None, state={}),
        authenticator=SimpleNamespace(platform=platform),
    )
    monkeypatch.setattr(TorporKubeSpawner, "use_own_token", lambda self, grant_id: None)
    spawner.load_state(
        {
            "kubespawner_version": "7.1.0",
            "workspace_id": RUN.workspace_id,
            "namespace": NAMESPACE,
            "pod_name": names.pod(RUN.workspace_id),
            "grant_id": RUN.grant_id,
            "handle": handle,
        }
    )
    try:
        yield spawner
    finally:
        await seen.aclose()


@pytest.fixture
def beside(cluster_config: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[LyingCluster, str], Any]:
    return lambda cluster, handle: hub_beside(cluster, tmp_path, monkeypatch, handle=handle)


Beside = Callable[[LyingCluster, str], Any]
ERRORS = (
    ClusterUnavailable("No answer."),
    Denied("The hub may not list pods there.", reason="FORBIDDEN", next_step="", answer=""),
    ClusterError("Something else."),
    KeyError("metadata"),
)


async def missed(spawner: TorporKubeSpawner) -> None:
    """Wait until the watch misses the spawner's pod."""
    async with asyncio.timeout(10):
        while not spawner.cluster.misses(spawner.namespace, spawner.pod_name, spawner.handle):
            await asyncio.sleep(0)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_never_means_that_a_server_has_stopped(beside: Beside, error: Exception) -> None:
    async def story() -> None:
        cluster = LyingCluster()
        cluster.pods = [made()]
        async with beside(cluster, "uid-of-gr-1") as spawner:
            await spawner.cluster.known(NAMESPACE, within_s=10)
            cluster.fails = error
            cluster.say_gone(cluster.pods[0])
            await missed(spawner)
            assert await spawner.poll() is None
            assert spawner.will_resume
            cluster.fails = None
            assert await spawner.poll() is None, "the list does not agree with the watch"
            cluster.pods = []
            assert await spawner.poll() == 0
            assert not spawner.will_resume

    asyncio.run(story())


def test_an_api_server_that_was_never_heard_means_nothing(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "KNOWN_S", 0.01)

    async def story() -> None:
        cluster = LyingCluster()
        cluster.fails = ClusterUnavailable("No answer.")
        async with beside(cluster, "uid-of-gr-1") as spawner:
            assert await spawner.poll() is None
            assert spawner.is_running() is None

    asyncio.run(story())


def test_a_server_that_has_ended_is_stopped_with_its_exit_code(beside: Beside) -> None:
    async def story() -> None:
        cluster = LyingCluster()
        ended = made("Failed")
        ended["status"]["containerStatuses"] = [{"state": {"terminated": {"exitCode": 3}}}]
        cluster.pods = [ended]
        async with beside(cluster, "uid-of-gr-1") as spawner:
            assert await spawner.poll() == 3

    asyncio.run(story())


def test_another_pod_of_the_same_name_is_not_the_server(beside: Beside) -> None:
    async def story() -> None:
        cluster = LyingCluster()
        cluster.pods = [made(grant_id="gr-2")]
        async with beside(cluster, "uid-of-gr-1") as spawner:
            assert await spawner.poll() == 0

    asyncio.run(story())


def test_a_hub_that_ended_before_it_noted_the_pod_knows_it_by_its_labels(beside: Beside) -> None:
    async def story() -> None:
        cluster = LyingCluster()
        cluster.pods = [made()]
        async with beside(cluster, "") as spawner:
            assert await spawner.poll() is None
            assert spawner.handle == "uid-of-gr-1"
            assert spawner.orm_spawner.state["handle"] == "uid-of-gr-1"

    asyncio.run(story())


def test_a_server_that_runs_costs_no_request_to_poll(beside: Beside) -> None:
    async def story() -> None:
        cluster = LyingCluster()
        cluster.pods = [made()]
        async with beside(cluster, "uid-of-gr-1") as spawner:
            await spawner.cluster.known(NAMESPACE, within_s=10)
            before = cluster.lists
            for _ in range(10):
                assert await spawner.poll() is None
            assert cluster.lists == before

    asyncio.run(story())


def test_a_live_pod_is_adopted_whatever_grant_made_it() -> None:
    pod = made(grant_id="gr-0")
    assert adoption.adoptable([pod], token_of, "gr-1") is pod


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_over_or_leaves_is_waited_for(phase: str) -> None:
    leaving = made()
    leaving["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    for pod in (made(phase), leaving):
        assert adoption.adoptable([pod], token_of, "gr-1") is None
        assert adoption.why_not([pod], token_of).passes_s > 0


def test_a_pod_that_cannot_come_up_is_taken_up_by_its_own_start_alone() -> None:
    pod = made("Pending")
    waiting = {"reason": "ErrImagePull", "message": "manifest unknown"}
    pod["status"]["containerStatuses"] = [{"state": {"waiting": waiting}}]
    assert adoption.adoptable([pod], token_of, "gr-1") is pod
    assert adoption.adoptable([pod], token_of, "gr-2") is None


def test_a_pod_of_another_key_ends_the_start_at_once() -> None:
    hindrance = adoption.why_not([made()], lambda _: "another")
    assert adoption.adoptable([made()], lambda _: "another", "gr-1") is None
    assert hindrance.passes_s == 0
    assert "hub-server-token-key" in str(hindrance.refusal())


QUOTA = Denied("Memory is used up.", reason="QUOTA", next_step="End something.", answer="")
POLICY = Denied("Not this image.", reason="POLICY", next_step="Take another.", answer="")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ClusterUnavailable("x"), True),
        (ObjectExists("x"), True),
        (ObjectMissing("x"), True),
        (QUOTA, True),
        (POLICY, False),
        (ClusterError("x"), False),
    ],
)
def test_what_may_pass_is_tried_again_and_what_cannot_ends_the_start(error: ClusterError, passes: bool) -> None:
    hindrance = hindrances.of_error(error)
    assert (hindrance.passes_s > 0) is passes
    assert hindrance.cause.message
    assert hindrance.cause.next_step


def test_the_api_servers_own_words_are_not_for_people() -> None:
    refusal = hindrances.of_error(ClusterError("Pod ws-1: admission webhook said 42")).refusal()
    assert "42" not in refusal.message
    assert "42" not in refusal.jupyterhub_message


def test_a_saved_environment_of_another_tenant_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    digest = "sha256:" + "1" * 64
    for tenant in ("operations", "research-two"):
        run = replace(RUN, image=f"{HOST}/torpor/workspaces/{tenant}/ws-9@{digest}")
        with pytest.raises(SpawnException, match="own rules do not allow"):
            pod_of(run, settings(tmp_path), args=(), environment={}, base_url="/", token="t")
    run = replace(RUN, image=f"{HOST}/torpor/workspaces/research/ws-9@{digest}")
    assert pod_of(run, settings(tmp_path), args=(), environment={}, base_url="/", token="t")


def test_a_pod_shows_no_token_outside_of_its_servers_environment(tmp_path: Path) -> None:
    token = secrets.token_hex(32)
    run = replace(RUN, amount=Amount(500, GIB))
    pod = pod_of(run, settings(tmp_path), args=(), environment={}, base_url="/", token=token)
    assert token not in str(pod)


@pytest.mark.parametrize(("mode", "spawner"), [("process", TorporProcessSpawner), ("kubernetes", TorporKubeSpawner)])
def test_the_settings_choose_what_starts_servers_and_where_the_hub_is_found(
    mode: str, spawner: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secrets").mkdir()
    for name in SECRETS:
        (tmp_path / "secrets" / name).write_text("secret")
    hub = {"host": "", "port": 8081, "connect_url": "http://torpor-hub:8081"}
    file = tmp_path / "settings.yaml"
    file.write_text(settings(tmp_path).model_copy(update={"mode": mode, "hub": Address(**hub)}).model_dump_json())
    monkeypatch.setenv("TORPOR_SETTINGS", str(file))
    config = Config()
    runpy.run_path(str(HUB_FOLDER / "jupyterhub_config.py"), init_globals={"get_config": lambda: config})
    assert import_item(config.JupyterHub.spawner_class) is spawner
    assert config.JupyterHub.hub_bind_url == "http://:8081"
    assert config.JupyterHub.hub_connect_url == "http://torpor-hub:8081"
    assert config.JupyterHub.cleanup_servers is False


@pytest.mark.parametrize(("url", "told"), [("https://hub.example/lab/", True), ("http://127.0.0.1:8000/lab/", False)])
def test_behind_tls_the_hub_knows_its_public_address(tmp_path: Path, url: str, told: bool) -> None:
    (tmp_path / "secrets").mkdir()
    for name in SECRETS:
        (tmp_path / "secrets" / name).write_text("secret")
    config = Config()
    configure(config, settings(tmp_path).model_copy(update={"public_url": url}), "x.Y")
    assert config.JupyterHub.get("public_url") == (url if told else None)
