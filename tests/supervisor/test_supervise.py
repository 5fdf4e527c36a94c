from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from torpor_hub.processes import identity, trees
from torpor_hub.supervisor import ports

PROGRAM = Path(__file__).with_name("stand_in.py")
WITHIN_S = 15.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Platform:
    """A supervised platform of stand-ins, seen from outside: by its output, its record, its ports and the process table."""

    def __init__(self, state: Path, *extra: str) -> None:
        self.state = state
        self.mark = ("TORPOR_STAND_IN", str(state))
        self.ports = ports.keep(state / "ports.json", ("server", "proxy", "hub"))
        self.command = [sys.executable, str(PROGRAM), str(state), *map(str, self.ports.values()), *extra]
        self.output = state / "output"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            return subprocess.Popen(
                self.command, stdout=output, stderr=output, env={**os.environ, self.mark[0]: self.mark[1]}
            )

    def ready(self) -> Platform:
        until(lambda: "ready" in self.said(), f"never ready: {self.said()}")
        return self

    def said(self) -> str:
        return self.output.read_text()

    def diary(self) -> list[str]:
        return (self.state / "diary").read_text().splitlines()

    def pid(self, name: str) -> int:
        rows = json.loads((self.state / "run" / "services.json").read_text())
        return next(int(row["pid"]) for row in rows if row["name"] == name)

    def answers(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def processes(self) -> set[int]:
        return {stat.pid for stat in trees.marked(*self.mark)}

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WITHIN_S)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Platform]]:
    made: list[Platform] = []

    def make(*extra: str) -> Platform:
        made.append(Platform(tmp_path, *extra))
        return made[-1]

    yield make
    for platform in made:
        for pid in platform.processes():
            os.kill(pid, signal.SIGKILL)
        platform.process.wait()


def test_services_start_in_order_and_end_in_order_and_leave_no_process(launch: Callable[..., Platform]) -> None:
    platform = launch().ready()
    assert all(platform.answers(name) for name in platform.ports)
    assert len(platform.processes()) == 7
    assert platform.end() == 0
    assert platform.diary() == [
        *("starts server", "starts proxy", "starts hub"),
        *("ends server", "ends hub", "ends proxy"),
    ]
    assert platform.processes() == set()
    assert not (platform.state / "run" / "services.json").exists()


@pytest.mark.parametrize("name", ["server", "proxy", "hub"])
def test_a_service_that_is_killed_is_back_on_its_port(launch: Callable[..., Platform], name: str) -> None:
    platform = launch().ready()
    others = {other: platform.pid(other) for other in platform.ports if other != name}
    first = platform.pid(name)
    os.kill(first, signal.SIGKILL)
    until(lambda: platform.pid(name) != first and platform.answers(name), "not restarted")
    until(lambda: f"The {name} is back." in platform.said(), "not announced")
    assert f"The {name} ended (SIGKILL); it starts again in 0.2 s." in platform.said()
    assert {other: platform.pid(other) for other in others} == others
    assert platform.end() == 0
    assert platform.processes() == set()


def test_after_a_kill_of_the_supervisor_no_service_is_left(launch: Callable[..., Platform]) -> None:
    platform = launch().ready()
    services = [identity.of(platform.pid(name)) for name in platform.ports]
    platform.process.kill()
    platform.process.wait()
    until(lambda: not any(each and identity.alive(each) for each in services), "services outlived their supervisor")
    assert sorted(platform.diary()[3:]) == ["ends hub", "ends proxy", "ends server"]


def test_after_a_kill_of_the_supervisor_the_next_start_finds_its_ports_free(launch: Callable[..., Platform]) -> None:
    platform = launch("stubborn").ready()
    platform.process.kill()
    platform.process.wait()
    for name in platform.ports:
        os.kill(platform.pid(name), signal.SIGKILL)
    platform.output.unlink()
    platform.process = platform.start()
    assert all(platform.ready().answers(name) for name in platform.ports)


def test_a_second_ctrl_c_ends_at_once_and_leaves_no_process(launch: Callable[..., Platform]) -> None:
    platform = launch("stubborn").ready()
    platform.process.send_signal(signal.SIGINT)
    until(lambda: "Once more Ctrl-C" in platform.said() and "ends server" in platform.diary(), "no orderly end begun")
    assert platform.process.poll() is None
    assert platform.end() == 0
    assert platform.processes() == set()


def test_a_service_that_cannot_start_ends_the_rest_and_shows_its_last_lines(
    launch: Callable[..., Platform], tmp_path: Path
) -> None:
    (tmp_path / "diary.broken-hub").touch()
    platform = launch()
    assert platform.process.wait(WITHIN_S) == 1
    assert "The hub ended at its start (status 1). The last lines of" in platform.said()
    assert "the configuration is wrong" in platform.said()
    assert platform.processes() == set()


def test_a_service_that_dies_again_and_again_is_tried_at_growing_intervals(
    launch: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = launch().ready()
    broken = tmp_path / "diary.broken-proxy"
    broken.touch()
    os.kill(platform.pid("proxy"), signal.SIGKILL)
    until(lambda: "it starts again in 0.8 s" in platform.said(), "no growing interval")
    broken.unlink()
    until(lambda: "The proxy is back." in platform.said(), "not back after the cause was mended")
    assert platform.answers("proxy")


def test_ctrl_c_while_services_start_leaves_no_process(launch: Callable[..., Platform]) -> None:
    platform = launch()
    until((platform.state / "run" / "services.json").exists, "nothing started")
    assert platform.end() == 0
    assert "ready" not in platform.said()
    assert platform.processes() == set()


def test_a_second_supervisor_on_the_same_state_starts_nothing(launch: Callable[..., Platform]) -> None:
    platform = launch().ready()
    second = subprocess.run(platform.command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"in use by process {platform.process.pid}" in second.stdout
    assert len(platform.diary()) == 3


def test_a_child_whose_parent_died_is_reaped(launch: Callable[..., Platform]) -> None:
    platform = launch().ready()
    child = trees.descendants(platform.pid("hub"))[0]
    os.kill(platform.pid("hub"), signal.SIGKILL)
    until(lambda: (stat := identity.read_stat(child.pid)) and stat.parent == platform.process.pid, "not adopted")
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: identity.read_stat(child.pid) is None, "left as a zombie")
    assert platform.process.poll() is None
