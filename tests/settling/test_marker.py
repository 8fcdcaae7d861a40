"""Markers: their form, their place in requests, and the server's answers to them."""

from __future__ import annotations

import random

from equos_async._marker import (
    VARIABLE,
    MarkerUse,
    marker_of,
    markers_of,
    new_marker,
    start_of,
    with_marker,
    without_marker,
)


def test_no_two_are_equal_whatever_the_seed() -> None:
    """128 bits each; an injected source of chance has no part in it."""
    markers: set[str] = set()
    for _ in range(100):
        random.seed(1)
        markers.add(new_marker())
    assert len(markers) == 100
    assert all(len(bytes.fromhex(one)) == 16 for one in markers)


def test_a_start_has_one_for_each_attempt() -> None:
    """All of them lead to the start's own, and no two starts' to the same."""
    markers = markers_of("m1")
    attempts = [next(markers) for _ in range(12)]
    assert len(set(attempts)) == 12
    assert {start_of(one) for one in attempts} == {"m1"} == {start_of("m1")}


def test_it_comes_and_goes_with_the_variables() -> None:
    """Users see the variables that they sent."""
    mine = {"name": "Ada"}
    sent = with_marker(mine, "m1")
    assert marker_of(sent) == "m1"
    assert without_marker(sent) == mine
    assert mine == {"name": "Ada"}
    assert without_marker(mine) is mine
    assert without_marker(None) is None
    assert without_marker(with_marker(None, "m1")) is None


def test_it_replaces_one_that_a_request_brings_along() -> None:
    """A renewal may be made from what a server showed."""
    assert with_marker(with_marker({"a": "b"}, "old"), "new") == {"a": "b", VARIABLE: "new"}


def test_what_is_no_marker_is_none() -> None:
    """A server may show anything."""
    assert marker_of(None) is None
    assert marker_of({}) is None
    assert marker_of({VARIABLE: 5}) is None


def test_a_server_that_names_the_variable_does_not_want_it() -> None:
    """Whatever it accepted before."""
    use = MarkerUse()
    use.accept(shown=True)
    assert not use.may_be_why(400, "name is too long")
    assert use.may_be_why(422, f"property {VARIABLE} should not exist")
    assert use.is_on
    assert use.accept_without(422, f"property {VARIABLE} should not exist")
    assert not use.is_on
    assert not use.accept_without(422, f"property {VARIABLE} should not exist")


def test_a_first_refusal_without_a_word_is_tried_without() -> None:
    """Until one was accepted; then it must have been something else."""
    use = MarkerUse()
    assert use.may_be_why(400, "bad request")
    assert not use.may_be_why(403, VARIABLE)
    use.accept(shown=True)
    assert not use.accept_without(400, "bad request")
    assert use.is_on


def test_a_marker_that_is_not_shown_is_vain_to_wait_for() -> None:
    """Until one is shown."""
    use = MarkerUse()
    assert use.is_shown
    use.accept(shown=False)
    assert not use.is_shown
    use.accept(shown=True)
    assert use.is_shown
