"""Jobs from submit to result: real api, real controller, real processes."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import cloudpickle

from tests.jobs.job_platform import GIB, JobPlatform
from torpor_hub.processes import trees
from torpor_hub.runners.base import MARK


def processes(job: str, attempt: int = 1) -> list[int]:
    return [stat.pid for stat in trees.marked(MARK, f"{job}-a{attempt}")]


def wrapper(job: str, attempt: int = 1) -> int:
    return next(pid for pid in processes(job, attempt) if os.getsid(pid) == pid)


def gone(job: str, attempt: int = 1) -> bool:
    deadline = time.monotonic() + 15
    while processes(job, attempt):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def appears(file: Path) -> bool:
    deadline = time.monotonic() + 15
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_function_runs_and_its_value_and_log_come_back(platform: JobPlatform) -> None:
    def main(x: int) -> int:
        print("counting")
        return x + 1

    main.__module__ = "__main__"
    job = platform.function(cloudpickle.dumps({"function": main, "args": (41,), "kwargs": {}}))
    status = platform.ended(job)
    assert (status["phase"], status["exit_code"], status["attempt"]) == ("SUCCEEDED", 0, 1)
    answer = platform.get(f"/jobs/{job}/result")
    assert pickle.loads(answer.content) == {"value": 42}
    assert status["result"]["type"] == "value"
    assert answer.headers["Torpor-SHA256"] == status["result"]["sha256"]
    assert platform.log(job) == "counting\n"
    assert platform.freed()
    assert gone(job)
    assert list((platform.settings.state_dir / "jobs").iterdir()) == []


def test_a_failed_function_tells_type_message_and_traceback(platform: JobPlatform) -> None:
    def main() -> None:
        raise LookupError("nothing there")

    main.__module__ = "__main__"
    status = platform.ended(platform.function(cloudpickle.dumps({"function": main, "args": (), "kwargs": {}})))
    assert (status["phase"], status["reason"]) == ("FAILED", "EXCEPTION")
    assert status["exception"]["type"] == "LookupError"
    assert "nothing there" in status["exception"]["traceback"]
    assert status["result"]["type"] == "exception"


def test_a_log_is_read_in_ranges_while_the_job_runs(platform: JobPlatform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job = platform.command("sh", "-c", f"echo one; read x < {gate}; echo two")
    platform.wait(job, lambda status: status["log_bytes"] == 4)
    first = platform.get(f"/jobs/{job}/log")
    assert (first.text, first.headers["Torpor-Next-Offset"], first.headers["Torpor-Attempt"]) == ("one\n", "4", "1")
    assert platform.status(job)["phase"] == "RUNNING"
    gate.write_text("go\n")
    platform.ended(job)
    assert platform.log(job, offset=4) == "two\n"
    assert platform.log(job, offset=2) == "e\ntwo\n"
    assert platform.log(job, tail=3) == "wo\n"


def test_jobs_beyond_the_quota_wait_with_a_reason_and_run_in_their_order(platform: JobPlatform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    large = {"cpu_milli": 3000, "memory_bytes": GIB}
    first = platform.command("sh", "-c", f"read x < {gate}", amount=large)
    platform.wait(first, lambda status: status["phase"] == "RUNNING")
    second = platform.command("echo", "second", amount=large)
    third = platform.command("echo", "third")
    waits = platform.wait(second, lambda status: status["position"] == 1)
    assert waits["parts"] == [
        "It needs 3 cores; its tenant may hold 4 cores, and 3 cores of that is held: 2 cores must become free."
    ]
    behind = platform.wait(third, lambda status: status["position"] == 2)
    assert behind["parts"] == ["1 job of its tenant came earlier and must start first."]
    assert behind["message"].startswith("Number 2 in the queue.")
    gate.write_text("go\n")
    ends = [platform.ended(job) for job in (first, second, third)]
    assert [status["phase"] for status in ends] == ["SUCCEEDED"] * 3
    assert ends[1]["started_at"] >= ends[0]["ended_at"]
    assert platform.freed()


def test_a_cancel_frees_everything_also_of_code_that_ignores_it(platform: JobPlatform) -> None:
    job = platform.command(
        "sh", "-c", "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & while :; do sleep 1; done"
    )
    platform.wait(job, lambda status: status["phase"] == "RUNNING")
    assert platform.cancel(job).json()["status"]["phase"] == "CANCELLING"
    assert platform.ended(job)["phase"] == "CANCELLED"
    assert platform.freed()
    assert gone(job)
    assert platform.cancel(job).json()["status"]["phase"] == "CANCELLED"


def test_a_killed_wrapper_leaves_no_process_and_the_job_runs_once_more(platform: JobPlatform, tmp_path: Path) -> None:
    mark = tmp_path / "second"
    script = f"echo attempt; if [ -e {mark} ]; then exit 0; fi; touch {mark}; setsid sleep 600 & exec sleep 600"
    job = platform.command("sh", "-c", script)
    platform.wait(job, lambda status: status["log_bytes"] > 0)
    os.kill(wrapper(job), signal.SIGKILL)
    status = platform.ended(job)
    assert (status["phase"], status["attempt"]) == ("SUCCEEDED", 2)
    assert gone(job)
    assert platform.freed()
    assert platform.log(job, attempt=1) == platform.log(job, attempt=2) == "attempt\n"


def test_a_job_that_is_lost_again_fails_with_the_reason(platform: JobPlatform) -> None:
    job = platform.command("sh", "-c", "kill -9 $PPID; sleep 600", retries=1)
    status = platform.ended(job)
    assert (status["phase"], status["reason"], status["attempt"]) == ("FAILED", "LOST", 2)
    assert platform.freed()


def test_a_job_survives_a_restart_of_api_and_controller(platform: JobPlatform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job = platform.command("sh", "-c", f"echo before; read x < {gate}; echo after; exit 5")
    platform.wait(job, lambda status: status["log_bytes"] > 0)
    platform.controller.end(orderly=False)
    platform.api.stop()
    gate.write_text("go\n")
    exit_file = platform.settings.state_dir / "jobs" / f"{job}-a1" / "exit.json"
    assert appears(exit_file)
    platform.api.start()
    platform.new_controller()
    status = platform.ended(job)
    assert (status["phase"], status["exit_code"], status["attempt"]) == ("FAILED", 5, 1)
    assert platform.log(job) == "before\nafter\n"
    assert platform.freed()
    assert gone(job)


def test_what_a_killed_wrapper_had_not_delivered_is_taken_from_its_disk(platform: JobPlatform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def main(path: str) -> str:
        print("waiting")
        Path(path).read_text()
        print("the last line")
        return "kept"

    main.__module__ = "__main__"
    job = platform.function(cloudpickle.dumps({"function": main, "args": (str(gate),), "kwargs": {}}))
    platform.wait(job, lambda status: status["log_bytes"] > 0)
    pid = wrapper(job)
    platform.api.stop()
    gate.write_text("go\n")
    exit_file = platform.settings.state_dir / "jobs" / f"{job}-a1" / "exit.json"
    assert appears(exit_file)
    os.kill(pid, signal.SIGKILL)
    platform.api.start()
    status = platform.ended(job)
    assert (status["phase"], status["attempt"]) == ("SUCCEEDED", 1)
    assert pickle.loads(platform.get(f"/jobs/{job}/result").content) == {"value": "kept"}
    assert platform.log(job) == "waiting\nthe last line\n"


def test_an_orderly_end_of_the_platform_puts_its_jobs_back_into_the_queue(platform: JobPlatform) -> None:
    job = platform.command("sh", "-c", "echo up; exec sleep 600", retries=3)
    platform.wait(job, lambda status: status["log_bytes"] > 0)
    platform.controller.end(orderly=True)
    status = platform.status(job)
    assert (status["phase"], status["reason"]) == ("QUEUED", "PLATFORM_STOPPED")
    assert processes(job) == []
    assert platform.used()["jobs"] == 0
    platform.new_controller()
    assert platform.wait(job, lambda now: now["phase"] == "RUNNING")["attempt"] == 2


def test_a_job_that_runs_too_long_says_so(platform: JobPlatform) -> None:
    status = platform.ended(platform.command("sleep", "600", timeout_s=0.5))
    assert (status["phase"], status["reason"]) == ("FAILED", "TIMEOUT")
    assert "0.5 s" in status["message"]


def test_others_see_nothing_of_a_job(platform: JobPlatform) -> None:
    job = platform.command("sleep", "600")
    for path in (f"/jobs/{job}", f"/jobs/{job}/log", f"/jobs/{job}/result", f"/jobs/{job}/attempts/1/task"):
        assert platform.get(path, who="ben").status_code == 404
    assert platform.get("/jobs", who="ben").json()["items"] == []
    assert platform.get(f"/jobs/{job}", who="root").status_code == 200
    assert platform.get(f"/jobs/{job}/log", who="root").status_code == 403


def answer_of(response: Any) -> tuple[int, str, str]:
    content = response.json()
    return response.status_code, content["code"], content["pointer"]


def test_a_job_that_can_never_run_is_refused_with_the_numbers(platform: JobPlatform) -> None:
    code = {"type": "command", "argv": ["true"]}
    refused = platform.submit(code=code, amount={"cpu_milli": 9000, "memory_bytes": GIB})
    assert answer_of(refused) == (409, "quota_exceeded", "/spec/amount")
    assert "needs 9 cores, but its tenant may hold at most 4 cores" in refused.json()["detail"]


def test_a_repeated_submit_gives_the_same_job_and_another_one_is_refused(platform: JobPlatform) -> None:
    one = platform.submit(code={"type": "command", "argv": ["true"]}, key="k1")
    two = platform.submit(code={"type": "command", "argv": ["true"]}, key="k1")
    assert one.status_code == two.status_code == 201
    assert one.json()["id"] == two.json()["id"]
    other = platform.submit(code={"type": "command", "argv": ["false"]}, key="k1")
    assert answer_of(other)[:2] == (409, "idempotency_mismatch")


def test_wrong_submits_name_the_field(platform: JobPlatform) -> None:
    code = {"type": "command", "argv": ["true"]}
    assert answer_of(platform.submit(code=code, kind="dance")) == (422, "invalid_request", "/spec/kind")
    assert answer_of(platform.submit(code=code, bundle=b"x")) == (422, "invalid_request", "/bundle")
    assert platform.submit(code=code, bundle=b"x" * (16 * 1024**2 + 1)).status_code == 413
    assert platform.submit(who="ben", code=code, tenant="research").status_code == 404
    unfinished = platform.command("sleep", "600")
    assert answer_of(platform.get(f"/jobs/{unfinished}/result"))[:2] == (409, "not_finished")


def test_a_form_is_told_what_it_may_offer(platform: JobPlatform) -> None:
    options = platform.get("/job-options").json()
    assert [kind["kind"] for kind in options["kinds"]] == ["command", "spark"]
    assert options["tenant"] == "research"
    assert options["most"] == {"cpu_milli": 4000, "memory_bytes": 8 * GIB, "gpu_count": 0}
    assert options["default"]["environment"] == "profile"
