from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from torpor_hub import errors
from torpor_hub.spawning import mixin, platform, tokens
from torpor_hub.spawning.platform import WorkspaceState
from torpor_hub.spawning.refusals import refused


def test_options_of_a_form_and_of_a_request_mean_the_same() -> None:
    assert mixin.chosen({"profile": ["large"], "tenant": "research", "_xsrf": "x", "environment": ""}) == {
        "profile": "large",
        "tenant": "research",
    }


@pytest.mark.parametrize(
    ("phase", "desired", "operating", "seen", "over"),
    [
        ("RUNNING", "asleep", False, False, False),  # the controller has not begun
        ("SLEEPING", "asleep", True, True, False),
        ("ASLEEP", "asleep", False, True, True),
        ("RUNNING", "asleep", False, True, True),  # it failed; the workspace goes on
        ("RUNNING", "running", False, False, True),  # the person came back
        ("STOPPED", "asleep", False, False, True),
    ],
)
def test_a_sleep_is_over_when_it_succeeded_failed_or_was_called_off(
    phase: str, desired: str, operating: bool, seen: bool, over: bool
) -> None:
    assert mixin.sleep_is_over(WorkspaceState(phase, desired, operating), seen) is over


def test_everybody_who_watches_a_start_sees_every_event_once() -> None:
    async def watch() -> tuple[list[str], list[str]]:
        progress = mixin.Progress()
        seen: tuple[list[str], list[str]] = ([], [])

        async def follow(to: list[str]) -> None:
            async for event in progress.follow():
                to.append(event["message"])

        progress.tell(1, "one")
        early = asyncio.create_task(follow(seen[0]))
        await asyncio.sleep(0)
        progress.tell(1, "one")
        progress.tell(2, "two")
        late = asyncio.create_task(follow(seen[1]))
        for _ in range(5):
            await asyncio.sleep(0)
        for task in (early, late):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return seen

    assert asyncio.run(watch()) == (["one", "two"], ["one", "two"])


def test_each_start_has_a_token_of_its_own_which_only_the_key_gives() -> None:
    one = tokens.derive("key", "ada", "first", "ws-1", "gr-1")
    assert one == tokens.derive("key", "ada", "first", "ws-1", "gr-1")
    others = {
        tokens.derive("key", "ada", "first", "ws-1", "gr-2"),
        tokens.derive("other", "ada", "first", "ws-1", "gr-1"),
        tokens.derive("key", "ada", "firstws-1", "", "gr-1"),
    }
    assert len(others) == 3
    assert one not in others


def test_a_problem_becomes_the_error_that_the_api_raised() -> None:
    body = {"detail": "There is no room.", "next_step": "Wait.", "code": "quota_exceeded"}
    with pytest.raises(errors.Conflict) as caught:
        platform._content(httpx.Response(409, json=body))
    assert (caught.value.message, caught.value.next_step, caught.value.code) == (
        "There is no room.",
        "Wait.",
        "quota_exceeded",
    )


@pytest.mark.parametrize("answer", [httpx.Response(502, text="<html>"), httpx.Response(200, text="[]")])
def test_an_answer_that_is_none_of_the_apis_counts_as_no_answer(answer: httpx.Response) -> None:
    with pytest.raises(errors.Unavailable) as caught:
        platform._content(answer)
    assert caught.value.next_step


def test_a_log_in_a_refusal_cannot_bring_html_into_the_page() -> None:
    error = refused("It ended.", "Start again.", reason="ended", log="<script>alert(1)</script>")
    assert "<script>" not in error.jupyterhub_html_message
    assert "&lt;script&gt;" in error.jupyterhub_html_message
