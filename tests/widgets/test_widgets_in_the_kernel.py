"""The widgets as the kernel sees them: no browser, a platform in memory."""

import threading
import time

import cloudpickle
import httpx
import pytest

from tests.client.fake_platform import FakePlatform, problem
from torpor.widgets import JobCard, JobForm, card_state

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def platform():
    return FakePlatform()


def until(condition, deadline_s=10.0):
    ends = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)
    return True


@pytest.fixture
def job(platform):
    key = platform.add("job", "train", spec={"kind": "spark"}, phase="QUEUED", position=2, attempt=1)
    platform.set(key, message="Waiting for 2 cores.", parts=["Tenant research uses 4 of 4 cores."])
    return platform.client().job(key)


def test_a_card_says_what_the_platform_says(job):
    card = JobCard(job, follow=False)
    said = {name: card.state[name] for name in ("phase", "position", "message", "parts", "tone")}
    assert said == {
        "phase": "QUEUED",
        "position": 2,
        "message": "Waiting for 2 cores.",
        "parts": ["Tenant research uses 4 of 4 cores."],
        "tone": "idle",
    }


def test_a_card_follows_its_job_in_a_thread_until_it_has_ended(platform, job):
    platform.logs[job.id] = b"step 1\nstep 2\n"
    platform.results[job.id] = cloudpickle.dumps({"value": {"score": 0.9}})
    done = {"phase": "SUCCEEDED", "position": None, "result": {"size_bytes": 40, "type": "value"}}
    platform.script[job.id] = [{"phase": "RUNNING", "position": None}, done]
    card = JobCard(job)
    assert card._thread.daemon
    assert card._thread is not threading.main_thread()
    until(lambda: not card._thread.is_alive())
    assert card.state["phase"] == "SUCCEEDED"
    assert card.log == "step 1\nstep 2\n"
    assert card.outcome == {"kind": "value", "title": "dict", "text": "{'score': 0.9}"}


def test_the_cancel_button_cancels_the_job(platform, job):
    card = JobCard(job)
    card._handle_custom_msg({"type": "cancel"}, [])
    until(lambda: platform.things[job.id]["spec"].get("desired") == "cancelled")
    card.close()
    assert until(lambda: not card._thread.is_alive())


def test_a_refused_cancel_is_said_on_the_card(platform, job):
    card = JobCard(job, follow=False)
    refusal = problem(403, "forbidden", "This job is bob's.", "Ask bob.")
    platform.answers["PATCH", f"jobs/{job.id}"] = lambda _: refusal
    card.cancel()
    assert card.notice == "This job is bob's. Ask bob. (request req-7f)"


def test_a_platform_that_is_away_is_said_and_what_is_known_stays(platform, job):
    card = JobCard(job, follow=False)
    answer = platform.answers[("GET", f"jobs/{job.id}")] = lambda _: problem(503, "busy", "The platform restarts.", "")
    assert answer
    assert card.look() is False
    assert card.notice.startswith("The platform restarts.")
    assert card.state["phase"] == "QUEUED"
    del platform.answers["GET", f"jobs/{job.id}"]
    card.look()
    assert card.notice == ""


def test_the_log_is_read_onward_and_kept_short(platform, job):
    platform.logs[job.id] = b"a" * 100_000
    card = JobCard(job, follow=False)
    card.look()
    assert len(card.log) == 32 * 1024
    platform.logs[job.id] += b"b" * 10
    card.look()
    assert card.log.endswith("a" + "b" * 10)
    assert len(card.log) == 32 * 1024


def test_an_exception_is_shown_with_its_remote_traceback(platform, job):
    exception = {"type": "KeyError", "message": "'week'", "traceback": "Traceback …\nKeyError: 'week'\n"}
    platform.set(job.id, phase="FAILED", exception=exception)
    card = JobCard(job, follow=False)
    card.look()
    assert card.outcome["title"] == "KeyError: 'week'"
    assert card.outcome["text"].endswith("KeyError: 'week'\n")


def test_a_large_result_is_not_fetched(platform, job):
    platform.set(job.id, phase="SUCCEEDED", result={"size_bytes": 12 * 1024**2, "type": "value"})
    job.refresh()
    assert card_state.outcome_of(job)["text"] == f"The result has 12 MiB: torpor.job('{job.id}').result() returns it."


class BadRepr:
    def __repr__(self):
        raise ValueError("no words")


def test_a_long_or_broken_repr_does_not_break_the_card():
    assert len(card_state._shown("x" * 100_000)) <= 4000
    assert "BadRepr instance" in card_state._shown(BadRepr())


def test_a_job_is_found_again_by_its_id(platform, job):
    again = platform.client().job(job.id).widget()
    assert again.state["id"] == job.id
    again.close()


def test_a_page_without_widgets_has_text_and_a_snapshot(job):
    data, _ = JobCard(job, follow=False)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "Number 2 in the queue." in data["text/plain"]
    assert "Tenant research uses 4 of 4 cores." in data["text/html"]


def train(rounds):
    return rounds


@pytest.fixture
def form(platform):
    made = JobForm(train, 3, client=platform.client())
    yield made
    for card in made.card_place.children:
        card.close()


def test_the_form_offers_what_the_platform_offers(form):
    fields = form.fields
    assert [value for _, value in fields["kind"].options] == ["command", "spark"]
    assert (fields["cores"].value, fields["cores"].max) == (1.0, 4.0)
    assert (fields["memory"].value, fields["memory"].max) == (1.0, 8.0)
    assert fields["name"].value == "train"
    assert fields["environment"].value == "workspace"


def test_the_limits_are_bounds(form):
    form.fields["cores"].value = 64
    assert form.fields["cores"].value == 4.0


def test_the_help_follows_the_kind(form):
    form.fields["kind"].value = "spark"
    assert "A Spark driver and its executors." in form._help_of_kind.value


def test_where_nothing_is_saved_form_and_card_say_what_jobs_run_with(platform):
    notice = "Jobs run with the profile's own image, without what you installed."
    choices = [{"value": "profile", "title": "As the profile has it"}]
    default = {**platform.options["default"], "environment": "profile"}
    platform.options = {**platform.options, "environments": choices, "default": default, "notice": notice}
    form = JobForm(client=platform.client())
    assert form.fields["environment"].value == "profile"
    assert form.fields["environment"].tooltip == notice
    key = platform.add("job", "train", phase="RUNNING", notice=notice)
    card = JobCard(platform.client().job(key), follow=False)
    assert card.state["notice"] == notice
    assert notice in card._repr_mimebundle_()[0]["text/plain"]


def test_a_submit_shows_the_card_of_the_job(form, platform):
    form.fields["memory"].value = 2
    form.submit_button.click()
    job_id = form.job.id
    assert platform.things[job_id]["spec"]["amount"]["memory_bytes"] == 2 * 1024**3
    assert form.card_place.children[0].state["id"] == job_id


def test_the_button_is_disabled_while_submitting(form, platform):
    seen = []

    def submitted(request):
        seen.append((form.submit_button.disabled, form.submit_button.description))
        return platform._submitted(request)

    platform.answers["POST", "jobs"] = submitted
    form.submit()
    assert seen == [(True, "Submitting…")]
    assert (form.submit_button.disabled, form.submit_button.description) == (False, "Submit")


POINTERS = {
    "/spec/amount/memory_bytes": "memory",
    "/spec/amount/cpu_milli": "cores",
    "/spec/amount": "cores",
    "/spec/name": "name",
    "/spec/kind": "kind",
    "/spec/environment": "environment",
    "": "form",
    "/spec/code": "form",
}


@pytest.mark.parametrize(("pointer", "field"), POINTERS.items())
def test_a_refusal_is_said_beside_its_field(form, platform, pointer, field):
    refusal = problem(409, "quota_exceeded", "Tenant <research> may use 4 cores.", "Ask for less.", pointer)
    platform.answers["POST", "jobs"] = lambda _: refusal
    assert form.submit() is None
    said = {name: place.value for name, place in form.errors.items() if place.layout.display != "none"}
    assert list(said) == [field]
    assert "Tenant &lt;research&gt; may use 4 cores. Ask for less.</div>" in said[field]
    del platform.answers["POST", "jobs"]
    form.submit()
    assert all(place.layout.display == "none" for place in form.errors.values())


def test_a_form_without_a_function_takes_a_command(platform):
    form = JobForm(client=platform.client())
    assert form.submit() is None
    assert "python train.py" in form.errors["command"].value
    form.fields["command"].value = "python -c 'print(1)'"
    job = form.submit()
    assert platform.things[job.id]["spec"]["code"]["argv"] == ["python", "-c", "print(1)"]
    form.card_place.children[0].close()


def test_a_form_without_a_platform_says_so(platform):
    platform.answers["GET", "job-options"] = lambda _: httpx.Response(500, json={"detail": "The API failed."})
    with pytest.raises(Exception, match="The API failed"):
        JobForm(train, client=platform.client())
