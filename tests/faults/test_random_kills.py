"""Kills with -9 at random, while people work: afterwards everything has converged, and nothing that was saved is lost.

The seed is printed; ``TORPOR_SEED`` repeats the draws (not the machine's timing), ``TORPOR_KILLS`` shortens the long run.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from tests.faults import oracles
from tests.faults.storm import AT_LEAST, SUPERVISOR, VICTIMS, Storm, all_points
from tests.faults.workload import Life
from tests.support.failpoints import Failpoints
from tests.support.people import Person
from tests.support.platform import Platform, platform, until

pytestmark = [pytest.mark.faults, pytest.mark.embedded]
SETTINGS = """
[limits]
claim_s = 5
import_stage_s = 10
thaw_after_s = 60
"""
CONVERGES_WITHIN_S = 300
AGREE_WITHIN_S = 30


@dataclass
class Town:
    """A platform under load."""

    site: Platform
    storm: Storm
    lives: list[Life]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    seed = int(os.environ.get("TORPOR_SEED", random.SystemRandom().randrange(10**6)))
    print(f"TORPOR_SEED={seed}")
    failpoints = Failpoints(tmp_path / "failpoints")
    failpoints.folder.mkdir()
    with platform(tmp_path, settings=SETTINGS, TORPOR_FAILPOINTS=str(failpoints.folder)) as site:
        draw = random.Random(seed)
        points = [point for point in all_points() if point != SUPERVISOR]
        storm = Storm(site, failpoints, draw, points)
        lives = [
            Life(Person(site, name), tenant, dataset_in(site, tenant), random.Random(draw.random()), tmp_path)
            for name, tenant in (("ada", "research"), ("ben", "operations"))
        ]
        for life in lives:
            life.workspace = life.person.create(f"of-{life.person.name}", life.tenant)
            life.start()
        yield Town(site, storm, lives)
        for life in lives:
            life.finish()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_everything_converges_after_thirty_kills(town: Town) -> None:
    weather(town, 30)
    assert len(town.storm.kills) >= 30


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_everything_converges_after_three_hundred_kills_at_every_step(town: Town) -> None:
    town.storm.points.append(SUPERVISOR)
    weather(town, int(os.environ.get("TORPOR_KILLS", "300")))
    hit = {kill.how.removeprefix("at ") for kill in town.storm.kills}
    assert set(all_points()) - hit == set()


def weather(town: Town, count: int) -> None:
    """Let the storm pass, then look at everything."""
    try:
        town.storm.blow(count)
        town.storm.draw.shuffle(town.lives)
        for life in town.lives:
            life.finish()
        until(lambda: not oracles.unsettled(town.site), CONVERGES_WITHIN_S, "a settled platform")
    finally:
        print(town.storm.table())
        print("\n".join(f"{life.person.name}: {dict(life.done)}" for life in town.lives))
        print("unsettled:", oracles.unsettled(town.site))
    counts = Counter(victim for kill in town.storm.kills for victim in VICTIMS if victim in kill.victim)
    assert min(counts[victim] for victim in VICTIMS) >= AT_LEAST, counts
    truth_and_record_agree(town)
    for life in town.lives:
        nothing_is_lost(life)
    truth_and_record_agree(town)


def truth_and_record_agree(town: Town) -> None:
    """Compare processes, files and database after the storm; each may need a moment to be seen."""
    site = town.site
    _comes_true(lambda: oracles.strays(site), "stray processes")
    assert oracles.frozen(site) == []
    _comes_true(lambda: oracles.wrong_reservations(site), "wrong reservations")
    assert list(oracles.wrong_workspaces(site)) == []
    assert list(oracles.wrong_images(site)) == []
    assert list(oracles.disagreements(site, [life.person for life in town.lives])) == []
    armed = [file.name for file in town.storm.failpoints.folder.iterdir() if file.name != "hits.log"]
    assert armed == []


def _comes_true(wrong: Callable[[], object], what: str) -> None:
    """Wait until nothing is wrong; say what is wrong at the end, not at the beginning."""
    with contextlib.suppress(AssertionError):
        until(lambda: not wrong(), AGREE_WITHIN_S, what)
    assert not (left := wrong()), f"{what} after {AGREE_WITHIN_S} s: {left}"


def nothing_is_lost(life: Life) -> None:
    """Wake the workspace, find every package in it, and once more after a sleep; and find what the jobs printed."""
    person, workspace = life.person, life.workspace
    for _ in range(2):
        if person.status(workspace)["phase"] != "RUNNING":
            person.wished(workspace, desired="running")
            person.reaches(workspace, "RUNNING")
        code = f"import importlib; print([importlib.import_module(name).VALUE for name in {list(life.installed)}])"
        with person.kernel(workspace) as kernel:
            assert kernel.run(code) == f"{list(life.installed.values())}\n"
        person.wished(workspace, desired="asleep")
        person.reaches(workspace, "ASLEEP")
    for job, expected in life.expected.items():
        status = person.job(job)
        assert status["message"] or status["phase"] == "SUCCEEDED", status
        if status["phase"] == "SUCCEEDED":
            assert person.job_log(job) == f"{expected}\n", (job, status)
        else:
            assert status["reason"] in ("LOST", "CAPTURE_FAILED"), status


def dataset_in(site: Platform, tenant: str) -> str:
    """Return the id of a small dataset in a tenant."""
    folder = site.state / "data" / tenant
    folder.mkdir(parents=True)
    duckdb.sql(f"COPY (SELECT range AS number FROM range(2000)) TO '{folder / 'part.parquet'}' (FORMAT parquet)")
    root = Person(site, "root")
    source = {"name": tenant, "tenant": tenant, "kind": "files", "spec": {"root": str(folder)}}
    assert root.client.post("/sources", json=source).status_code == 201
    made = root.client.post("/datasets", json={"name": tenant, "tenant": tenant, "source": tenant, "path": "."})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])
