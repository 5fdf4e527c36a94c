"""What the platform learns of a start that the cluster does not let happen: its page says it, not the hub's alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.spawner import SpawnException

from tests.podspecs.examples import RUN
from tests.spawning.test_kube_rules import LyingCluster, cluster_config, hub_beside
from torpor_hub.domain.diagnose import Cause
from torpor_hub.errors import Denied, Unavailable
from torpor_hub.spawning import hindrances, kube
from torpor_hub.spawning.platform import Grant, Platform

__all__ = ["cluster_config"]  # a fixture
WORDS = "The tenant's share of the cluster is used up."
QUOTA = Denied(WORDS, reason="QUOTA", next_step="Put a workspace to sleep.", answer="exceeded quota: tenant")
GRANT = Grant("gr-1", RUN, "")


class Told:
    """A platform that grants every start, and remembers what it was told of it."""

    def __init__(self, *, away: bool = False) -> None:
        self.waits: list[Cause | None] = []
        self.ended: list[Cause] = []
        self._away = away

    async def start_workspace(self, _user: str, _server: str, _options: Any, hindrance: Cause | None = None) -> Grant:
        self.waits.append(hindrance)
        return GRANT

    async def give_up_start(self, _user: str, _server: str, cause: Cause) -> None:
        if self._away:
            raise Unavailable("The platform does not answer.")
        self.ended.append(cause)


async def started(told: Told, folder: Path, monkeypatch: pytest.MonkeyPatch) -> SpawnException:
    cluster = LyingCluster()
    cluster.fails = QUOTA
    async with hub_beside(cluster, folder, monkeypatch, handle="") as spawner:
        own: Platform = spawner.authenticator.platform
        spawner.authenticator = SimpleNamespace(platform=told)
        told.settings = own.settings  # type: ignore[attr-defined]
        with pytest.raises(SpawnException) as refusal:
            await spawner.bring_up(GRANT)
        return refusal.value


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "RETRY_S", 0.01)
    monkeypatch.setitem(hindrances.PASSES_S, "QUOTA", 0.1)


@pytest.mark.usefixtures("cluster_config", "soon")
def test_what_a_start_waits_for_is_told_at_once_and_its_end_with_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    refusal = asyncio.run(started(told, tmp_path, monkeypatch))
    assert told.waits[0] == Cause("QUOTA", WORDS, "Put a workspace to sleep.")
    assert [cause.reason for cause in told.ended] == ["QUOTA"]
    assert WORDS in str(refusal)


@pytest.mark.usefixtures("cluster_config", "soon")
def test_a_platform_that_is_away_changes_nothing_for_the_person_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WORDS in str(asyncio.run(started(Told(away=True), tmp_path, monkeypatch)))
