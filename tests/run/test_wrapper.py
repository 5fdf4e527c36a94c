from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import cloudpickle

from tests.run.conftest import Start
from tests.support.job_api import JobApi

NAME = "job-x-a1"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CODE = {"type": "function", "name": "main", "python": PYTHON, "cloudpickle": cloudpickle.__version__}


def notebook(cells: str) -> bytes:
    """Return the bundle that a notebook makes of its function ``main``, in an interpreter of its own."""
    program = textwrap.dedent(cells) + textwrap.dedent("""
        import cloudpickle, sys
        bundle = {"function": main, "args": globals().get("args", ()), "kwargs": globals().get("kwargs", {})}
        sys.stdout.buffer.write(cloudpickle.dumps(bundle, protocol=5))
    """)
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout


def run_function(api: JobApi, start: Start, cells: str, **more: Any) -> dict[str, Any]:
    api.add(NAME, CODE, bundle=notebook(cells), **more)
    assert start().wait(60) == 0
    content = pickle.loads(api.results[NAME])
    assert isinstance(content, dict)
    return content


def run_command(api: JobApi, start: Start, *argv: str, **more: Any) -> dict[str, Any]:
    api.add(NAME, {"type": "command", "argv": list(argv)}, **more)
    start()
    assert api.wait(lambda: NAME in api.exits)
    return api.exits[NAME]


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def eventually(condition: Any, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_function_with_helpers_and_globals_of_its_notebook_returns_its_value(api: JobApi, start: Start) -> None:
    result = run_function(
        api,
        start,
        """
        FACTOR = 3
        class Answer:
            def __init__(self, value): self.value = value
        def helper(x): return Answer(x * FACTOR)
        def main(x, *, plus): print("working"); return helper(x).value + plus
        args, kwargs = (5,), {"plus": 2}
        """,
    )
    assert result == {"value": 17}
    assert api.log(NAME) == "working\n"
    assert api.exits[NAME] == {"rank": 0, "exit_code": 0, "reason": "", "message": "", "exception": None}


def test_a_local_module_travels_by_value(api: JobApi, start: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("SCALE = 7\ndef scale(x):\n    return x * SCALE\n")
    result = run_function(
        api,
        start,
        f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r})
        import cloudpickle, mine; cloudpickle.register_pickle_by_value(mine)
        def main(): return mine.scale(6)
        """,
    )
    assert result == {"value": 42}


def test_an_exception_comes_back_with_the_frames_of_the_user(api: JobApi, start: Start) -> None:
    api.add(
        NAME,
        CODE,
        bundle=notebook("""
            class Odd(Exception): pass
            def inner(): raise Odd("three is odd")
            def main(): inner()
        """),
    )
    assert start().wait(60) == 0
    result = pickle.loads(api.results[NAME])
    reported = api.exits[NAME]
    assert type(result["exception"]).__name__ == "Odd"
    assert str(result["exception"]) == "three is odd"
    assert reported["reason"] == "exception"
    assert reported["exit_code"] == 1
    assert reported["exception"]["type"] == "Odd"
    assert reported["exception"]["message"] == "three is odd"
    assert "in inner" in result["traceback"]
    assert "child.py" not in result["traceback"]
    assert "three is odd" in api.log(NAME)


def test_an_exception_that_cannot_be_loaded_again_comes_back_as_text(api: JobApi, start: Start) -> None:
    result = run_function(
        api,
        start,
        """
        class Picky(Exception):
            def __init__(self, one, two): super().__init__("picky")
        def main(): raise Picky(1, 2)
        """,
    )
    assert result["exception"] == "Picky: picky"
    assert "Picky: picky" in result["traceback"]


def test_a_value_that_cannot_be_pickled_is_told_in_a_sentence(api: JobApi, start: Start) -> None:
    result = run_function(api, start, "import threading\ndef main(): return threading.Lock()")
    assert "The function returned lock, which cannot be pickled" in str(result["exception"])


def test_a_value_beyond_the_limit_is_told_in_a_sentence(api: JobApi, start: Start) -> None:
    result = run_function(api, start, "def main(): return b'x' * 3_000_000", result_bytes=2 * 1024**2)
    assert "more than the 2 MiB" in str(result["exception"])


def test_a_function_of_another_python_is_refused_with_a_sentence(api: JobApi, start: Start) -> None:
    api.add(NAME, {**CODE, "python": "3.9"}, bundle=notebook("def main(): return 1"))
    assert start().wait(60) == 0
    message = api.exits[NAME]["exception"]["message"]
    assert "submitted from Python 3.9" in message
    assert f"has Python {PYTHON}" in message


def test_a_missing_module_is_named(api: JobApi, start: Start, tmp_path: Path) -> None:
    (tmp_path / "absent_there.py").write_text("def f(): return 1\n")
    cells = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom absent_there import f as main"
    run_function(api, start, cells)
    assert "needs the module 'absent_there'" in api.exits[NAME]["exception"]["message"]


def test_a_command_runs_in_its_scratch_folder_without_the_token(api: JobApi, start: Start, tmp_path: Path) -> None:
    script = 'pwd; echo "$HOME"; command -v python; env | grep -c TOKEN; exit 3'
    exit_ = run_command(api, start, "sh", "-c", script)
    folder, home, python, tokens = api.log(NAME).splitlines()
    assert folder == str(tmp_path / NAME / "scratch")
    assert home == str(tmp_path)
    assert python == str(Path(sys.executable).parent / "python")
    assert tokens == "0"
    assert (exit_["exit_code"], exit_["reason"]) == (3, "")
    assert exit_["message"] == "The job's process ended with exit code 3."


def test_a_command_that_is_not_there_says_so(api: JobApi, start: Start) -> None:
    exit_ = run_command(api, start, "no-such-program")
    assert exit_["exit_code"] == 127
    assert "'no-such-program' cannot be started" in exit_["message"]


def test_the_log_arrives_while_the_code_runs(api: JobApi, start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    api.add(NAME, {"type": "command", "argv": ["sh", "-c", f"echo first; read line < {gate}; echo second >&2"]})
    start()
    assert api.wait(lambda: api.log(NAME) == "first\n")
    assert NAME not in api.exits
    gate.write_text("go\n")
    assert api.wait(lambda: NAME in api.exits)
    assert api.log(NAME) == "first\nsecond\n"


def test_a_restart_of_the_api_loses_nothing(api: JobApi, start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f"i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; read x < {gate}; echo last"
    api.add(NAME, {"type": "command", "argv": ["sh", "-c", script]})
    process = start()
    assert api.wait(lambda: api.beats.get(NAME))
    api.stop()
    gate.write_text("go\n")
    assert eventually((tmp_path / NAME / "exit.json").exists)
    assert json.loads((tmp_path / NAME / "exit.json").read_text())["delivered"] is False
    api.start()
    assert process.wait(30) == 0
    assert api.log(NAME) == "".join(f"line {i}\n" for i in range(2000)) + "last\n"
    assert api.exits[NAME]["exit_code"] == 0
    assert json.loads((tmp_path / NAME / "exit.json").read_text())["delivered"] is True


def test_a_cancel_ends_what_ignores_a_polite_signal(api: JobApi, start: Start, tmp_path: Path) -> None:
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"
    script = f'trap "" TERM; setsid {sys.executable} -c "{deaf}" & {sys.executable} -c "{deaf}"'
    api.add(NAME, {"type": "command", "argv": ["sh", "-c", script]})
    process = start()
    assert api.wait(lambda: len(api.log(NAME).split()) == 2)
    pids = [int(text) for text in api.log(NAME).split()]
    assert all(alive(pid) for pid in pids)
    api.desired[NAME] = "cancelled"
    assert api.wait(lambda: NAME in api.exits)
    assert process.wait(10) == 0
    assert api.exits[NAME]["reason"] == "cancelled"
    assert not any(alive(pid) for pid in pids)


def test_a_job_that_runs_too_long_is_ended(api: JobApi, start: Start) -> None:
    exit_ = run_command(api, start, "sleep", "600", timeout_s=0.5)
    assert exit_["reason"] == "timeout"
    assert exit_["message"] == "The job ran longer than its limit of 0.5 s and was ended."


def test_a_job_cancelled_before_its_start_runs_nothing(api: JobApi, start: Start, tmp_path: Path) -> None:
    api.desired[NAME] = "cancelled"
    exit_ = run_command(api, start, "sh", "-c", f"touch {tmp_path}/ran")
    assert exit_["reason"] == "cancelled"
    assert not (tmp_path / "ran").exists()


def test_nothing_that_the_code_left_behind_outlives_it(api: JobApi, start: Start) -> None:
    run_command(api, start, "sh", "-c", "setsid sh -c 'echo $$; exec sleep 600' & sleep 0.3")
    pid = int(api.log(NAME))
    assert not alive(pid)


def test_a_code_ended_by_a_signal_says_by_which(api: JobApi, start: Start) -> None:
    exit_ = run_command(api, start, "sh", "-c", "kill -9 $$")
    assert (exit_["exit_code"], exit_["reason"]) == (137, "killed")
    assert "SIGKILL" in exit_["message"]


def test_the_code_dies_with_a_wrapper_that_is_killed(api: JobApi, start: Start) -> None:
    api.add(NAME, {"type": "command", "argv": ["sh", "-c", "echo $$; exec sleep 600"]})
    process = start()
    assert api.wait(lambda: api.log(NAME))
    pid = int(api.log(NAME))
    process.kill()
    process.wait(10)
    assert eventually(lambda: not alive(pid))


def test_an_attempt_ended_from_outside_leaves_its_report_to_the_runner(
    api: JobApi, start: Start, tmp_path: Path
) -> None:
    api.add(NAME, {"type": "command", "argv": ["sh", "-c", "echo ready; exec sleep 600"]})
    process = start()
    assert api.wait(lambda: api.log(NAME))
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert json.loads((tmp_path / NAME / "exit.json").read_text())["reason"] == "lost"
    assert NAME not in api.exits


def test_an_attempt_that_the_platform_has_given_up_ends_its_code(api: JobApi, start: Start, tmp_path: Path) -> None:
    api.add(NAME, {"type": "command", "argv": ["sh", "-c", "echo $$; exec sleep 600"]})
    process = start()
    assert api.wait(lambda: api.log(NAME))
    pid = int(api.log(NAME))
    api.refused.add(NAME)
    process.wait(15)
    assert not alive(pid)


def test_the_wrapper_names_itself_before_the_code_starts(api: JobApi, start: Start) -> None:
    run_command(api, start, "cat", "../attempt.json")
    content = json.loads(api.log(NAME))
    assert set(content) == {"pid", "start_time", "boot"}


def test_how_an_attempt_ended_is_left_where_it_outlives_the_attempt(api: JobApi, start: Start, tmp_path: Path) -> None:
    left = tmp_path / "last-words"
    api.add(NAME, CODE, bundle=notebook("def main():\n    raise ValueError('é' * 5000)"))
    assert start(TORPOR_LAST_WORDS=str(left)).wait(60) == 0
    said = json.loads(left.read_bytes())
    assert (said["exit_code"], said["reason"], said["delivered"], said["result"]) == (1, "exception", True, True)
    assert said["exception"]["type"] == "ValueError"
    assert len(left.read_bytes()) <= 4096


def test_an_attempt_that_is_ended_before_it_has_its_task_goes_at_once(api: JobApi, start: Start) -> None:
    api.stop()
    process = start()
    assert eventually(lambda: handles_the_end(process.pid))
    process.terminate()
    assert process.wait(10) == 1


def test_what_could_not_be_delivered_of_a_log_is_left_to_the_runner(api: JobApi, start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    api.add(NAME, {"type": "command", "argv": ["sh", "-c", f"echo one; read x < {gate}; echo two"]})
    process = start()
    assert api.wait(lambda: api.log(NAME) == "one\n")
    api.stop()
    gate.write_text("go\n")
    folder = tmp_path / NAME
    assert eventually((folder / "exit.json").exists)
    process.terminate()
    assert process.wait(20) == 1
    assert "two\n" in (folder / "wrapper.log").read_text()
    assert "one\n" not in (folder / "wrapper.log").read_text()


def handles_the_end(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))
