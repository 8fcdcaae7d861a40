"""One state for each lost attempt, and the looks for all of them."""

from __future__ import annotations

import math
from itertools import cycle, pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equos_async._retry import search as module
from equos_async._retry.search import Fate, LostAttempt, Search, ending_wait, filters


def lost(marker: str = "m1", *, at: float = 0.0, client: str | None = "tenant") -> LostAttempt:
    """An attempt that was lost a second after it was sent."""
    return LostAttempt(marker=marker, client=client, sent_at=at - 1.0, lost_at=at)


def looks(search: Search, *, pages: int = 1, until: float = 1000.0) -> list[float]:
    """The times of all looks, each of which goes through at once."""
    found: list[float] = []
    while (at := search.next_at()) < until:
        look = search.begin(at)
        found.append(at)
        search.finish(look, at, pages=pages)
    return found


# One state.


def test_a_late_answer_is_handed_over_where_nobody_looked_first() -> None:
    """And what a look shows afterwards is the caller's."""
    one = lost()
    assert one.take()
    assert one.fate is Fate.ANSWERED
    assert not one.find("s1")
    assert one.sessions == {}


def test_a_late_answer_comes_too_late_where_a_look_was_first() -> None:
    """It names what is being ended already, or another one that is to be ended, too."""
    one = lost()
    assert one.find("s1")
    assert not one.take()
    assert not one.find("s1")
    assert one.find("s2")
    assert one.fate is Fate.ENDING


def test_ended_means_that_all_of_them_are() -> None:
    """A proxy may double a POST."""
    one = lost()
    one.find("s1")
    one.find("s2")
    fates: list[Fate] = []
    for session_id in ("s1", "s2"):
        one.confirm(session_id)
        fates.append(one.fate)
    assert fates == [Fate.ENDING, Fate.ENDED]
    assert not one.take()
    assert not one.find("s1")
    assert one.find("s3")
    assert one.fate is Fate.ENDING


def test_what_could_not_be_ended_is_not_over() -> None:
    """Whatever else is confirmed."""
    one = lost()
    one.find("s1")
    one.fail("s1")
    assert not one.take()
    fates = [one.fate]
    for session_id in ("s2", "s3"):
        assert one.find(session_id)
    for session_id in ("s2", "s3"):
        one.confirm(session_id)
        fates.append(one.fate)
    assert fates == [Fate.FAILED, Fate.ENDING, Fate.FAILED]


STEPS: Final = ("take", *(f"{what} {one}" for what in ("find", "confirm", "fail") for one in "12"))


@given(st.lists(st.sampled_from(STEPS)))
def test_nothing_is_both_handed_over_and_ended(steps: list[str]) -> None:
    """In any order of answers, looks and confirmations."""
    one = lost()
    handed = 0
    ending: list[str] = []
    open_ones: set[str] = set()
    for step in steps:
        what, _, session_id = step.partition(" ")
        if what == "take":
            handed += one.take()
        elif what == "find" and one.find(session_id):
            ending.append(session_id)
            open_ones.add(session_id)
        elif session_id in open_ones:
            open_ones.discard(session_id)
            (one.confirm if what == "confirm" else one.fail)(session_id)
    assert handed <= 1
    assert not (handed and ending)
    assert len(ending) == len(set(ending))
    confirmed = all(one.sessions.values())
    assert (one.fate is Fate.ENDED) == (bool(ending) and confirmed)
    assert (one.fate is Fate.ENDING) == bool(open_ones)


# When to look.


@pytest.mark.parametrize(
    ("look_for", "expected"),
    [
        (60.0, [1, 2, 4, 8, 16, 32, 60]),
        (200.0, [1, 2, 4, 8, 16, 32, 60, 120, 180, 200]),
        (45.0, [1, 2, 4, 8, 16, 32, 45]),
        (0.5, [0.5]),
    ],
)
def test_looks_are_further_and_further_apart(look_for: float, expected: list[float]) -> None:
    """The last one is at the end."""
    search = Search(look_for)
    search.add(lost(at=100.0))
    assert looks(search) == [100 + one for one in expected]
    assert search.next_at() == math.inf


@given(st.lists(st.floats(0, 300), min_size=1, max_size=20), st.integers(1, 20), st.floats(1, 300))
def test_each_is_looked_for_at_its_end(ats: list[float], pages: int, look_for: float) -> None:
    """However many are lost; and a look of n pages rests n seconds."""
    search = Search(look_for)
    for number, at in enumerate(ats):
        search.add(lost(str(number), at=at))
    times = looks(search, pages=pages, until=1e6)
    assert all(any(time >= at + look_for for time in times) for at in ats)
    assert all(later - earlier > pages - 1e-6 for earlier, later in pairwise(times))
    assert search.lost == {}


def test_what_was_answered_is_looked_for_no_more() -> None:
    """An attempt with a find still is, because it may have a second session."""
    search = Search(60.0)
    one, other = lost("m1"), lost("m2")
    search.add(one)
    search.add(other)
    assert search.find("m1", "s1") is one
    assert search.find("m1", "s1") is None
    assert search.find("another's", "s1") is None
    assert search.find(None, "s1") is None
    one.confirm("s1")
    other.take()
    assert search.find("m2", "s2") is None
    assert search.next_at() == 1.0
    assert list(search.lost) == ["m1"]
    one.fate = Fate.ANSWERED
    assert search.begin(1.0).attempts == ()


def test_a_look_covers_what_was_lost_when_it_began() -> None:
    """Attempts that are lost during a look need another one."""
    search = Search(60.0)
    search.add(lost("m1", at=0.0))
    look = search.begin(1.0)
    assert (look.began, look.since, look.clients) == (1.0, -1.0, ("tenant",))
    search.add(lost("m2", at=0.5))
    search.finish(look, 3.0, pages=4)
    assert search.next_at() == 7.0
    assert {one.marker: one.looked_at for one in search.lost.values()} == {"m1": 1.0, "m2": 0.5}


@given(
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 1)), min_size=1, max_size=8),
    st.lists(st.floats(0, 90), min_size=1, max_size=6),
)
def test_a_look_covers_nothing_that_comes_while_it_is_read(
    losses: list[tuple[float, float]], takes: list[float]
) -> None:
    """Whatever is listed within its time is seen by a look that begins after that."""
    search, seconds = Search(60.0), cycle(takes)
    coming = [lost(str(number), at=at) for number, (at, _) in enumerate(sorted(losses))]
    listed = {str(number): at + 60.0 * share for number, (at, share) in enumerate(sorted(losses))}
    seen: set[str] = set()

    def lose(until: float) -> None:
        while coming and coming[0].lost_at <= until:
            search.add(coming.pop(0))

    while coming or search.next_at() < math.inf:
        now = search.next_at() if search.lost else coming[0].lost_at
        lose(now)
        look = search.begin(now)
        seen |= {one.marker for one in look.attempts if listed[one.marker] <= now}
        now += next(seconds)
        lose(now)
        search.finish(look, now, pages=1)
    assert seen == listed.keys()


def test_a_client_that_closes_looks_at_once() -> None:
    """Then by the schedule again."""
    search = Search(60.0)
    search.hurry()
    assert search.next_at() == math.inf
    search.add(lost(at=0.0))
    assert search.next_at() == -math.inf
    look = search.begin(0.25)
    search.finish(look, 0.5, pages=1)
    assert search.next_at() == 1.5


def test_looks_that_fail_are_tried_again_and_not_for_ever() -> None:
    """1, 2, 4, … s later, as the server wishes, until well after the end."""
    search = Search(60.0)
    search.add(lost(at=0.0))
    times: list[float] = []
    while (at := search.next_at()) < math.inf:
        times.append(at)
        search.begin(at)
        search.fail(at, pages=1, retry_after=30.0 if len(times) == 1 else None)
    assert times[:6] == [1, 31, 33, 37, 45, 61]
    assert 600 < times[-1] <= 660
    assert all(later - earlier <= 60 for earlier, later in pairwise(times))


def test_a_look_that_goes_through_forgets_those_that_failed() -> None:
    """The next failure waits a second again."""
    search = Search(60.0)
    search.add(lost(at=0.0))
    search.fail(1.0, pages=1, retry_after=None)
    search.fail(2.0, pages=1, retry_after=None)
    look = search.begin(4.0)
    search.finish(look, 4.0, pages=1)
    search.fail(8.0, pages=0, retry_after=None)
    assert search.next_at() == 9.0


def test_looking_can_be_given_up() -> None:
    """If the key may not list, waiting callers get their errors."""
    search = Search(60.0)
    one = lost()
    search.add(one)
    assert search.give_up() == (one,)
    assert search.next_at() == math.inf


def test_the_newest_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, in a long outage, too."""
    monkeypatch.setattr(module, "MAX_LOST", 2)
    search = Search(60.0)
    dropped = [search.add(lost(str(number))) for number in range(4)]
    assert [one and one.marker for one in dropped] == [None, None, "0", "1"]
    assert list(search.lost) == ["2", "3"]


def test_what_is_not_confirmed_is_stopped_again() -> None:
    """1 s later at first, 60 s at most."""
    assert [ending_wait(stops) for stops in (1, 2, 3, 7, 5000)] == [1, 2, 4, 60, 60]


def test_lists_are_filtered_by_a_few_clients() -> None:
    """There is no filter if one of the starts has no client."""
    assert filters(["b", "a", "b"]) == ("a", "b")
    assert filters(["a", "b", "c"]) == ("a", "b", "c")
    assert filters(["a", "b", "c", "d"]) == (None,)
    assert filters(["a", None]) == (None,)
