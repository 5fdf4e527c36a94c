from __future__ import annotations

import json
import os
import secrets
import signal
from pathlib import Path

import pytest

from tests.processes.workspace_runs import bash, end, new_run, python, running, started, until
from torpor_hub.errors import PlaceError
from torpor_hub.processes import freeze, identity, launch, records, trees
from torpor_hub.processes.identity import Identity

ORPHANS = {
    "plain child": "sleep {token} & ",
    "own session": "setsid sleep {token} & ",
    "nohup double fork": "(nohup sleep {token} >/dev/null 2>&1 &) ",
    "no environment": "env -i setsid -f /bin/sleep {token} ",
    "session in a session": "setsid bash -c 'setsid sleep {token} & wait' & ",
    "disowned": "sleep {token} & disown ",
}


def a_token() -> str:
    return f"{secrets.randbelow(10**6) + 10**6}.{secrets.randbelow(10**6) + 10**6}"


def ended(run_root: Path) -> bool:
    record = launch.read_run(run_root)
    return record is not None and record.exit_code is not None


@pytest.mark.parametrize("signalled", ["the server ends by itself", "the reaper is asked to end"])
def test_no_kind_of_orphan_outlives_the_server(tmp_path: Path, signalled: str) -> None:
    run = new_run(tmp_path)
    tokens = {kind: a_token() for kind in ORPHANS}
    script = "\n".join(line.format(token=tokens[kind]) for kind, line in ORPHANS.items())
    go = tmp_path / "go"
    script += f"\ntrap 'exit 3' TERM; until [ -e {go} ]; do sleep 0.05; done; exit 3"
    with started(run, *bash(script)) as reaper:
        assert until(lambda: all(running(token) for token in tokens.values())), "the orphans never came to be"
        if signalled == "the reaper is asked to end":
            identity.send(reaper, signal.SIGTERM)
        else:
            go.touch()
        assert until(lambda: not identity.alive(reaper))
        assert {kind: running(token) for kind, token in tokens.items()} == {kind: [] for kind in ORPHANS}
        record = launch.read_run(Path(run.root_dir))
        assert record is not None
        assert record.exit_code == 3
        assert record.ended_at is not None
        assert record.ended_at >= record.started_at


def test_after_the_reaper_is_killed_everything_marked_can_be_ended(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    kept, lost = a_token(), a_token()
    script = f"trap '' TERM; setsid -f sleep {kept}; setsid bash -c 'env -i sleep {lost} & sleep {kept}' & sleep {kept}"
    with started(run, *bash(script)) as reaper:
        assert until(lambda: len(running(kept)) == 3 and len(running(lost)) == 1)
        end(reaper.pid)
        assert until(lambda: not identity.alive(reaper))
        assert running(kept), "nothing outlived the reaper: there is nothing to sweep"
        trees.end_tree(reaper, mark=(launch.GRANT_MARK, run.grant_id))
        assert running(kept) == []
        assert running(lost) == []


def test_a_server_ends_politely_when_its_reaper_is_killed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    told = tmp_path / "told"
    script = f"trap 'touch {told}; exit 0' TERM; touch {tmp_path}/up; while true; do sleep 0.05; done"
    with started(run, *bash(script)) as reaper:
        assert until((tmp_path / "up").exists)
        end(reaper.pid)
        assert until(told.exists)


def test_the_record_names_the_server_and_stands_before_it_runs(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    seen = tmp_path / "seen.json"
    with started(
        run, *bash(f"cp {run.root_dir}/run.json {seen}.part; mv {seen}.part {seen}; sleep 100"), port=4711
    ) as reaper:
        assert until(seen.exists)
        content = json.loads(seen.read_text())
        assert content["handle"] == reaper.handle()
        assert content["grant_id"] == run.grant_id
        assert until(lambda: bool(getattr(launch.read_run(Path(run.root_dir)), "server", "")))
        record = launch.read_run(Path(run.root_dir))
        assert record is not None
        assert (record.workspace_id, record.port) == (run.workspace_id, 4711)
        server = identity.parse(record.server)
        assert identity.alive(server)
        stat = identity.read_stat(server.pid)
        assert stat is not None
        assert stat.parent == reaper.pid


def test_every_process_carries_the_marks_and_no_file_keeps_the_tokens(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with started(run, *bash("sleep 100 & wait")) as reaper:
        assert until(lambda: len(trees.descendants(reaper.pid)) == 2)
        below = {stat.pid for stat in trees.descendants(reaper.pid)}
        assert {stat.pid for stat in trees.marked(launch.GRANT_MARK, run.grant_id)} == below
        assert {stat.pid for stat in trees.marked(launch.WORKSPACE_MARK, run.workspace_id)} == below
        assert not (Path(run.root_dir) / records.START_FILE).exists()
        assert (Path(run.root_dir) / records.RUN_FILE).stat().st_mode & 0o077 == 0


def test_a_server_that_cannot_be_started_says_so_in_its_log(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with started(run, "/nowhere/at-all"):
        root = Path(run.root_dir)
        assert until(lambda: ended(root))
        record = launch.read_run(root)
        assert record is not None
        assert record.exit_code == 127
        assert "/nowhere/at-all" in launch.last_lines(root / launch.LOG_FILE, 5)


def test_a_workspace_that_runs_is_not_started_twice(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with started(run, *bash("sleep 100")) as reaper:
        with pytest.raises(PlaceError, match="runs already"):
            launch.launch(run, bash("true"), {}, 0, log=Path(run.root_dir) / launch.LOG_FILE)
        record = launch.read_run(Path(run.root_dir))
        assert record is not None
        assert record.handle == reaper.handle()


def test_a_reaper_that_does_not_start_is_an_error_with_its_cause(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    (Path(run.root_dir) / freeze.LEASE_FILE).mkdir()
    with pytest.raises(PlaceError, match=r"freeze\.json"):
        launch.launch(run, bash("true"), {}, 0, log=Path(run.root_dir) / launch.LOG_FILE)
    assert launch.read_run(Path(run.root_dir)) is None


def test_the_number_of_a_process_alone_is_not_taken_for_the_process() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        found = identity.of(child)
        assert found is not None
        assert identity.alive(found)
        for other in (
            Identity(child, found.started - 1),
            Identity(child, found.started, "another-boot"),
        ):
            assert not identity.alive(other)
            assert not identity.send(other, signal.SIGKILL)
            trees.end_tree(other, grace_s=0.1)
        assert identity.alive(identity.parse(found.handle())), "a process with a reused number was ended"
        end(child)
        assert until(lambda: not identity.alive(found)), "a zombie was taken for alive"
    finally:
        end(child)
        os.waitpid(child, 0)


def test_a_command_that_looks_like_a_stat_line_is_read_right(tmp_path: Path) -> None:
    name = tmp_path / "a ) Z 1 1 (b"
    name.symlink_to("/bin/sleep")
    run = new_run(tmp_path)
    with started(run, str(name), "100") as reaper:
        assert until(lambda: any(stat.parent == reaper.pid for stat in trees.descendants(reaper.pid)))
        assert all(stat.state in "SRD" for stat in trees.descendants(reaper.pid))


def test_threads_that_outlive_the_first_one_keep_a_process_alive(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    script = "import ctypes,threading,time; threading.Thread(target=time.sleep, args=(100,)).start(); ctypes.CDLL(None).pthread_exit(0)"
    with started(run, *python(script)) as reaper:
        assert until(lambda: "Z" in {stat.state for stat in trees.descendants(reaper.pid)})
        headless = next(stat for stat in trees.descendants(reaper.pid) if stat.state == "Z")
        assert identity.alive(Identity(headless.pid, headless.started))
        trees.end_tree(reaper, grace_s=0)
        assert not identity.alive(Identity(headless.pid, headless.started))
