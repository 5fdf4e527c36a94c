"""Who goes to sleep next on nodes that are being emptied."""

from __future__ import annotations

from torpor_hub.domain.draining import AGAIN_AFTER_S, BEGINS_WITHIN_S, Drains


def on(node: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, node)


def test_two_of_each_node_go_to_sleep_at_once() -> None:
    waiting = on("one", "a", "b", "c") | on("two", "d", "e", "f")
    assert Drains().choose(waiting, {}, 0) == {"a", "b", "d", "e"}


def test_who_sleeps_already_counts_whoever_asked_for_it() -> None:
    assert Drains().choose(on("one", "a", "b"), on("one", "x"), 0) == {"a"}
    assert Drains().choose(on("one", "a", "b"), on("one", "x", "y"), 0) == frozenset()


def test_who_was_chosen_counts_before_its_sleep_is_seen_and_is_not_chosen_twice() -> None:
    drains = Drains()
    assert drains.choose(on("one", "a", "b", "c"), {}, 0) == {"a", "b"}
    assert drains.choose(on("one", "a", "b", "c"), {}, 1) == frozenset()
    assert drains.choose(on("one", "c"), on("one", "b"), 2) == {"c"}


def test_a_sleep_that_failed_is_tried_again_later_and_meanwhile_others_go_on() -> None:
    drains = Drains()
    assert drains.choose(on("one", "a", "b", "c"), {}, 0) == {"a", "b"}
    failed = 1000.0
    drains.choose(on("one", "c"), on("one", "a", "b"), failed)
    after = failed + BEGINS_WITHIN_S
    assert drains.choose(on("one", "a", "b", "c"), {}, after) == {"c"}
    again = failed + AGAIN_AFTER_S
    assert drains.choose(on("one", "a", "b"), on("one", "c"), again) == {"a"}


def test_those_who_always_fail_keep_no_other_waiting() -> None:
    drains, now_s = Drains(), 0.0
    waiting = on("one", "a", "b", "c", "d")
    tried = set()
    for _ in range(2):
        chosen = drains.choose(waiting, {}, now_s)
        now_s += 2 * AGAIN_AFTER_S
        drains.choose(on("one", *(waiting.keys() - chosen)), on("one", *chosen), now_s)
        now_s += AGAIN_AFTER_S
        tried |= chosen
    assert tried == {"a", "b", "c", "d"}
