"""Faults of a cluster at random, while people work: afterwards everything has converged, and nothing that was saved is lost.

The seed is printed; ``TORPOR_SEED`` repeats the draws (not the machine's timing), ``TORPOR_KILLS`` sets the number of faults.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import cluster_oracles, cluster_people
from tests.cluster.cluster_oracles import PodHistory
from tests.cluster.cluster_people import TENANTS, Resident, Town
from tests.cluster.cluster_storm import KINDS, Storm
from tests.cluster.release import REGISTRY, Release
from tests.faults.oracles import unsettled
from tests.support.people import Person
from torpor_hub.cluster.access import Access

pytestmark = [pytest.mark.cluster, pytest.mark.faults]
RELEASE = Release("faults", "hf")
IN_CI, IN_SOAK = 8, 100
CONVERGES_WITHIN_S, AT_LEAST_S = 60.0, 15.0
Record = Callable[[str, object], None]


@dataclass
class Weather:
    """A release under load, all its pods followed."""

    storm: Storm
    history: PodHistory

    @property
    def town(self) -> Town:
        return self.storm.town

    @property
    def lives(self) -> list[Resident]:
        return self.storm.lives


@pytest.fixture
def weather(reach: Access, tmp_path: Path) -> Iterator[Weather]:
    if not os.environ.get(REGISTRY):
        pytest.skip(f"needs the test cluster: {REGISTRY} is not set")
    seed = int(os.environ.get("TORPOR_SEED", random.SystemRandom().randrange(10**6)))
    print(f"TORPOR_SEED={seed}")
    draw = random.Random(seed)
    with cluster_people.built(RELEASE, limits=cluster_people.LIMITS) as town:
        history = PodHistory(town.namespaces())
        history.start()
        lives = [
            Resident(Person(town, user), tenant, town.dataset(tenant), random.Random(draw.random()), tmp_path)
            for user, tenant in TENANTS.items()
        ]
        try:
            for life in lives:
                life.workspace = life.person.create(f"of-{life.person.name}", life.tenant)
            for life in lives:
                life.person.reaches(life.workspace, "RUNNING")
                life.start()
            yield Weather(Storm(town, lives, draw), history)
        finally:
            town.door.be("open")
            for life in lives:
                life.finish()
            history.close()


@pytest.mark.timeout(900)
def test_nothing_is_wrong_a_minute_after_eight_faults(weather: Weather, record_property: Record) -> None:
    assert blow(weather, int(os.environ.get("TORPOR_KILLS", IN_CI)), record_property) == []


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_nothing_is_wrong_a_minute_after_a_hundred_faults(weather: Weather, record_property: Record) -> None:
    count = int(os.environ.get("TORPOR_KILLS", IN_SOAK))
    assert blow(weather, count, record_property) == []
    struck = {fault.kind for fault in weather.storm.faults}
    assert count < len(KINDS) or struck == set(KINDS)


def blow(weather: Weather, count: int, record_property: Record) -> list[str]:
    """Let the storm pass, then count, wake everything, and return what has been lost."""
    town, storm = weather.town, weather.storm
    try:
        storm.blow(count)
        for life in weather.lives:
            life.stop()
        for life in weather.lives:
            life.finish()
        left_s = max(AT_LEAST_S, CONVERGES_WITHIN_S - (time.monotonic() - storm.ended_at))
        cluster_oracles.nothing_is_wrong(town, weather.history, storm.deaths, left_s)
    finally:
        record_property("faults", storm.table())
        print(storm.table())
        print("\n".join(f"{life.person.name}: {dict(life.done)}" for life in weather.lives))
        print("\n".join(cluster_oracles.story(life, storm.deaths) for life in weather.lives))
        print("unsettled:", unsettled(town))
    assert len(storm.faults) == count
    with ThreadPoolExecutor() as pool:
        woken = list(pool.map(lambda life: list(cluster_oracles.not_woken([life], storm.deaths)), weather.lives))
    jobs = [list(cluster_oracles.wrong_jobs(life)) for life in weather.lives]
    cluster_oracles.nothing_is_wrong(town, weather.history, storm.deaths, CONVERGES_WITHIN_S)
    return [sentence for each in (*woken, *jobs) for sentence in each]
