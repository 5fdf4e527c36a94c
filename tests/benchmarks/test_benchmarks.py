"""The benchmarks run, and say what they measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.report import Outcome
from tests.cluster import release

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("start", "sleep", "sleep: until it is saved", "wake, same node", "wake, other node")
PEERS = ("stock KubeSpawner", "bare pod", "tar | zstd -1 -T2")
ROW = re.compile(r"^(?P<name>\S.*?) +(?P<median>\d+\.\d+) +(?P<least>\d+\.\d+) +(?P<most>\d+\.\d+)(?:  █+)?$", re.M)


def run(folder: Path, *arguments: str, within_s: float = 120) -> tuple[str, dict[str, Any]]:
    """Return what a smoke round prints, and what it writes."""
    file = folder / "figures.json"
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--smoke", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr[-4000:]}"
    assert re.search(r"seed \d+\. .* cores", ended.stdout)
    return ended.stdout, dict(json.loads(file.read_text()))


def rows(printed: str) -> dict[str, float]:
    return {row["name"]: float(row["median"]) for row in ROW.finditer(printed)}


needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="needs the program zstd to compare with")


@needs_zstd
def test_one_round_gives_seconds_and_a_ratio_to_the_peer_and_the_machines_facts(tmp_path: Path) -> None:
    printed, written = run(tmp_path, "path")
    shown = rows(printed)
    assert set(shown) == {"tar | zstd", "image, read back", "image, read back / tar | zstd"}
    assert min(shown.values()) > 0
    (outcome,) = written["outcomes"]
    seconds = outcome["seconds"]
    (ratio,) = outcome["ratios"]["image, read back / tar | zstd"]["rounds"]
    assert ratio == pytest.approx(seconds["image, read back"][0] / seconds["tar | zstd"][0])


def test_a_ratio_is_that_of_the_rounds_and_not_of_the_medians() -> None:
    outcome = Outcome("x", [("ours", "peer")])
    for ours, peer in ((1.0, 2.0), (8.0, 4.0), (9.0, 3.0)):
        outcome.add({"ours": ours, "peer": peer})
    assert report.content(outcome)["ratios"]["ours / peer"] == {
        **{"median": 2.0, "least": 0.5, "most": 3.0},
        "rounds": [0.5, 2.0, 3.0],
    }
    assert rows("\n".join(report.table(outcome)))["ours / peer"] == 2.0


def test_what_failed_before_its_first_round_is_shown_without_figures() -> None:
    assert report.table(Outcome("x", [("ours", "peer")]))[0] == "x; rounds: 0"


def test_without_a_cluster_a_benchmark_of_one_says_what_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    command = [sys.executable, "-m", "benchmarks", "small"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "KUBECONFIG is not set" in ended.stdout or "zstd is not here" in ended.stdout


@needs_zstd
@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_one_round_on_a_cluster_compares_starts_sleeps_and_wakes_with_their_peers(tmp_path: Path) -> None:
    for variable in ("KUBECONFIG", release.REGISTRY):
        if variable not in os.environ:
            pytest.skip(f"needs the test cluster: {variable} is not set")
    printed, written = run(tmp_path, "small", "large", "--cpu-milli", "500", within_s=1100)
    small, large = written["outcomes"]
    for outcome in (small, large):
        seconds = {way: figures[0] for way, figures in outcome["seconds"].items()}
        commit = next(way for way in seconds if way.endswith("commit + push"))
        assert {*STEPS, *PEERS} <= set(seconds)
        assert min(seconds[way] for way in (*STEPS, *PEERS, commit)) > 0
        assert 0 < seconds["sleep: frozen until then"] <= seconds["sleep: until it is saved"] < seconds["sleep"]
        assert {
            "start / stock KubeSpawner",
            "start / bare pod",
            f"sleep / {commit}",
            "sleep / tar | zstd -1 -T2",
        } <= set(outcome["ratios"])
        assert {"wake, same node / stock KubeSpawner", "wake, other node / stock KubeSpawner"} <= set(outcome["ratios"])
    assert "1 KiB" in printed and "in 502 files" in printed
