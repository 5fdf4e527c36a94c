"""Submit, follow, and have the value or the exception here."""

import json
import re
import traceback

import cloudpickle
import httpx
import pytest

import torpor
from tests.client.fake_platform import GIB, FakePlatform, multipart, problem

pytestmark = pytest.mark.filterwarnings("error")


def add(left, right=1):
    return left + right


def finish(platform: FakePlatform, job_id: str, outcome: dict, phase: str = "SUCCEEDED"):
    platform.results[job_id] = cloudpickle.dumps(outcome)
    kind = "exception" if "exception" in outcome else "value"
    platform.set(job_id, phase=phase, result={"size_bytes": 1, "sha256": "", "type": kind})


def spec_of(platform):
    return json.loads(multipart(platform.requests[-1])["spec"])


def test_a_function_is_sent_with_its_arguments(platform):
    job = platform.client().submit(add, 2, right=3, cores=1.5, memory="512 MiB")
    bundle = cloudpickle.loads(platform.bundles[job.id])
    assert bundle["function"](*bundle["args"], **bundle["kwargs"]) == 5
    spec = spec_of(platform)
    assert spec["amount"] == {"cpu_milli": 1500, "memory_bytes": 512 * 1024**2, "gpu_count": 0}
    assert (spec["name"], spec["kind"], spec["code"]["type"]) == ("add", "command", "function")


def test_a_command_is_sent_as_words_without_a_bundle(platform):
    job = platform.client().submit(["/usr/bin/python3", "train.py"], cores=1, memory="1GiB", timeout=60, retries=0)
    spec = spec_of(platform)
    assert spec["code"] == {"type": "command", "argv": ["/usr/bin/python3", "train.py"]}
    assert (spec["name"], spec["timeout_s"], spec["retries"]) == ("python3", 60, 0)
    assert platform.bundles[job.id] == b""


def test_what_is_not_said_is_what_the_platform_offers(platform):
    platform.client().submit(add, 1)
    assert spec_of(platform)["amount"] == {"cpu_milli": 1000, "memory_bytes": GIB, "gpu_count": 0}


def test_in_a_workspace_its_environment_is_the_default(platform):
    client = platform.client(environ={"TORPOR_WORKSPACE": "ws-mine"})
    client.submit(add, 1)
    spec = spec_of(platform)
    assert (spec["environment"], spec["workspace"]) == ("workspace", "ws-mine")
    client.submit(add, 1, environment="profile")
    assert spec_of(platform)["environment"] == "profile"


def test_elsewhere_the_profile_is_the_default(platform):
    platform.client().submit(add, 1)
    spec = spec_of(platform)
    assert spec["environment"] == "profile"
    assert "workspace" not in spec


@pytest.mark.parametrize("words", ["python train.py", [], ["python", 3]])
def test_what_is_neither_function_nor_words_is_refused(platform, words):
    with pytest.raises(TypeError, match="list of words"):
        platform.client().submit(words)


def test_a_submit_that_lost_its_answer_is_repeated_with_the_same_key(platform):
    keys = []

    def flaky(request):
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("reset", request=request)
        return platform._submitted(request)

    platform.answers["POST", "jobs"] = flaky
    client = platform.client()
    client.submit(add, 1)
    assert keys[0] == keys[1]
    client.submit(add, 1)
    assert keys[2] != keys[0]


def test_the_value_comes_back(platform):
    job = platform.client().submit(add, 2)
    platform.script[job.id] = [{"phase": "RUNNING"}]
    finish(platform, job.id, {"value": {"answer": 42}})
    platform.set(job.id, phase="RUNNING")
    platform.script[job.id] = [{"phase": "RUNNING"}, {"phase": "SUCCEEDED"}]
    assert job.result(timeout=10) == {"answer": 42}


def test_the_exception_is_raised_here_with_the_remote_traceback_as_its_cause(platform):
    job = platform.client().submit(add, 2)
    remote = 'Traceback (most recent call last):\n  File "cell", line 3, in train\nKeyError: "week"\n'
    finish(platform, job.id, {"exception": KeyError("week"), "traceback": remote}, "FAILED")
    with pytest.raises(KeyError, match="week") as caught:
        job.result()
    assert isinstance(caught.value.__cause__, torpor.RemoteTraceback)
    assert 'File "cell", line 3, in train' in "".join(traceback.format_exception(caught.value))


def test_a_job_that_was_killed_raises_its_reason_and_the_next_step(platform):
    job = platform.client().submit(add, 2)
    platform.set(job.id, phase="FAILED", message="The job used more than 1 GiB.", next_step="Ask for more memory.")
    with pytest.raises(torpor.JobFailed, match=r"used more than 1 GiB\. Ask for more memory") as caught:
        job.result()
    assert caught.value.job_id == job.id


def test_a_cancelled_job_has_its_own_error(platform):
    job = platform.client().submit(add, 2)
    assert job.cancel().phase == "QUEUED"
    assert platform.things[job.id]["spec"]["desired"] == "cancelled"
    platform.set(job.id, phase="CANCELLED", message="Cancelled by ada.")
    with pytest.raises(torpor.JobCancelled, match="Cancelled by ada"):
        job.result()


def test_a_command_that_went_well_has_no_value(platform):
    job = platform.client().submit(["true"])
    platform.set(job.id, phase="SUCCEEDED", exit_code=0)
    assert job.result() is None


def test_a_wait_ends_at_its_deadline_and_says_that_the_job_goes_on(platform):
    job = platform.client().submit(add, 2)
    with pytest.raises(torpor.WaitTimeout, match=r"It goes on: torpor\.job\('job-") as caught:
        job.wait(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)


def test_a_damaged_result_is_an_error(platform):
    job = platform.client().submit(add, 2)
    finish(platform, job.id, {"value": 1})
    wrong = httpx.Response(200, content=b"half", headers={"Torpor-SHA256": "0" * 64})
    platform.answers["GET", f"jobs/{job.id}/result"] = lambda _: wrong
    with pytest.raises(torpor.IncompleteStream, match="arrived damaged"):
        job.result()


def test_a_result_that_this_kernel_cannot_read_says_so(platform):
    job = platform.client().submit(add, 2)
    finish(platform, job.id, {"value": 1})
    platform.results[job.id] = b"cnot_a_module\nThing\n."
    with pytest.raises(torpor.JobFailed, match="this kernel cannot read it"):
        job.result()


def test_the_last_lines_of_a_log(platform):
    job = platform.client().submit(add, 2)
    platform.logs[job.id] = b"one\ntwo\nthree\n"
    assert job.log() == "one\ntwo\nthree\n"
    assert job.log(tail=2) == "two\nthree\n"


def test_following_a_log_misses_nothing_and_ends_with_the_job(platform):
    job = platform.client().submit(add, 2)
    text = "Grüße\n" * 3
    encoded = text.encode()
    pieces = [encoded[:3], encoded[:9], encoded]

    def log(request):
        offset = int(request.url.params["offset"])
        if pieces:
            platform.logs[job.id] = pieces.pop(0)
        else:
            platform.set(job.id, phase="SUCCEEDED")
        content = platform.logs[job.id]
        headers = {"Torpor-Next-Offset": str(len(content)), "Torpor-Attempt": "1"}
        return httpx.Response(200, content=content[offset:], headers=headers)

    platform.answers["GET", f"jobs/{job.id}/log"] = log
    assert "".join(job.logs(follow=True)) == text


def test_a_second_attempt_is_announced_in_the_log(platform):
    job = platform.client().submit(add, 2)
    platform.set(job.id, phase="FAILED", attempt=2)
    logs = {"1": b"first\n", "2": b"second\n"}

    def log(request):
        attempt = request.url.params.get("attempt", "1")
        content = logs[attempt][int(request.url.params["offset"]) :]
        headers = {"Torpor-Next-Offset": str(len(logs[attempt])), "Torpor-Attempt": attempt}
        return httpx.Response(200, content=content, headers=headers)

    platform.answers["GET", f"jobs/{job.id}/log"] = log
    assert "".join(job.logs(follow=True)) == "first\n\n--- attempt 2 ---\nsecond\n"


def test_a_job_is_found_by_id_and_by_name(platform):
    first = platform.add("job", "nightly")
    second = platform.add("job", "nightly")
    assert platform.client().job(first).id == first
    assert platform.client().job("nightly").id == second
    with pytest.raises(torpor.NotFound, match="no job 'weekly'"):
        platform.client().job("weekly")


def test_a_displayed_job_says_what_it_waits_for(platform):
    job = platform.client().submit(add, 2)
    platform.set(
        job.id, message="Waiting for 2 cores.", position=3, parts=["Tenant research uses 4 of 4 cores.", "<b>&</b>"]
    )
    shown = job._repr_mimebundle_()
    assert "QUEUED" in shown["text/plain"]
    assert "Number 3 in the queue.\nWaiting for 2 cores.\n• Tenant research uses 4 of 4 cores." in shown["text/plain"]
    assert "&lt;b&gt;" in shown["text/html"]


def test_displaying_a_job_does_not_raise_when_the_platform_is_away(platform):
    job = platform.client().submit(add, 2)
    platform.answers["GET", f"jobs/{job.id}"] = lambda _: problem(503, "busy", "Later.", "")
    assert "add" in job._repr_mimebundle_()["text/plain"]


def test_a_job_that_did_not_change_is_not_sent_again(platform):
    job = platform.client().submit(add, 2)
    job.refresh()
    assert platform.requests[-1].headers["if-none-match"] == '"1"'


def test_names_of_jobs_are_such_as_the_platform_takes():
    names = [torpor.client.job_name(text) for text in ("Train_Model", "<lambda>", "/opt/bin/run.sh", "2nd", "x" * 80)]
    assert names[:4] == ["train-model", "lambda", "run-sh", "job-2nd"]
    assert all(re.fullmatch(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,29}", name) for name in names)
