"""Refusals become errors that say what is wrong and what to do."""

import httpx
import pytest

import torpor
from tests.client.fake_platform import URL, problem
from torpor import errors
from torpor.connection import Connection

pytestmark = pytest.mark.filterwarnings("error")

STATUSES = {
    400: torpor.InvalidRequest,
    401: torpor.NotSignedIn,
    403: torpor.Forbidden,
    404: torpor.NotFound,
    409: torpor.Conflict,
    412: torpor.Conflict,
    413: torpor.InvalidRequest,
    422: torpor.InvalidRequest,
    429: torpor.Busy,
    500: torpor.ServerError,
    503: torpor.Busy,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_each_status_has_its_error(status, kind):
    assert type(errors.from_answer(status, b"{}")) is kind


def test_an_error_prints_the_message_the_next_step_and_the_request():
    answer = problem(409, "quota_exceeded", "Tenant research uses all 4 cores.", "Stop a job.", "/spec/amount")
    error = errors.from_answer(409, answer.content)
    assert str(error) == "Tenant research uses all 4 cores. Stop a job. (request req-7f)"
    assert (error.code, error.pointer) == ("quota_exceeded", "/spec/amount")


def test_an_answer_that_is_no_problem_document_is_cut():
    error = errors.from_answer(500, b"boom " * 1000)
    assert "status 500" in str(error)
    assert len(str(error)) < 400


def test_a_page_of_a_proxy_is_not_shown():
    assert str(errors.from_answer(404, b"<html>nope</html>")) == "The platform answered with status 404."


def connection(handler):
    return Connection(URL, "token", transport=httpx.MockTransport(handler), retry_pauses_s=(0, 0))


def test_a_lost_connection_is_tried_again_and_then_told(platform):
    tries = []

    def handler(request):
        tries.append(request)
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(torpor.PlatformUnreachable, match=r"platform\.test.*does not answer.*torpor env explain"):
        connection(handler).send(torpor.client.wire.health())
    assert len(tries) == 3


def test_a_busy_platform_is_asked_again():
    answers = [httpx.Response(503, headers={"retry-after": "0"}), httpx.Response(200, json={"status": "ok"})]
    assert connection(lambda _: answers.pop(0)).json(torpor.client.wire.health()) == {"status": "ok"}


def test_every_request_names_its_wire_version_and_its_owner(platform):
    platform.client().me()
    request = platform.requests[-1]
    assert request.headers["torpor-wire"] == "1"
    assert request.headers["authorization"].startswith("Bearer ")


def test_another_site_is_told_by_its_answer():
    with pytest.raises(torpor.PlatformUnreachable, match="does not answer as Torpor's API does"):
        connection(lambda _: httpx.Response(200, text="<html>")).json(torpor.client.wire.health())


def test_a_redirect_to_a_sign_in_page_is_told():
    with pytest.raises(torpor.PlatformUnreachable, match="leads elsewhere"):
        connection(lambda _: httpx.Response(302, headers={"location": "/hub/login"})).json(torpor.client.wire.health())


def test_lists_are_read_page_after_page(platform):
    for number in range(450):
        platform.add("job", f"job-{number}")
    assert len(platform.client().jobs(limit=None)) == 450
    assert len(platform.client().jobs(limit=210)) == 210
