"""Lists with what is another's, lists without an end, and what is let go, in virtual time."""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve

from equos_async._marker import VARIABLE
from equos_async._retry.pages import MAX_PAGES
from tests.settling.test_machine import AT_LAST, Settling
from tests.settling.test_sweep import PLAIN, begun


def test_markers_of_others() -> None:
    """Another process of the same customer looks for its own starts: they are nobody else's."""
    one = begun("dropped", "session")
    others = [one.face.server.start("a", {VARIABLE: marker}) for marker in ("0" * 32, "", "x")]
    one.wait(seconds=AT_LAST)
    assert [other is not None and not other.ended for other in others] == [True] * 3
    assert one.face.attempts[0].sessions[0].ended
    one.teardown()


def test_a_list_that_never_ends() -> None:
    """Without order and total, a look reads some pages, rests for as many seconds, and goes on."""
    one = Settling()
    kind = evolve(PLAIN, order=0, history=5000, tells_total=False)
    one.begin(kind=kind, word="session", patience=5.0, seed=3)
    one.start(client=None, fates=["unread"], in_block=False, deadline=None, steps=0)
    one.wait(seconds=AT_LAST)
    looked = one.face.looked_at
    rests = [after - before for before, after in pairwise(looked)]
    ends = [number for number, rest in enumerate(rests, 1) if rest > 2.0]
    assert ends[0] == MAX_PAGES
    assert all(rests[end - 1] >= MAX_PAGES for end in ends)
    assert len(looked) <= 4 * MAX_PAGES
    assert [found.name for found in one.client.unresolved] == ["start 0"]
    one.teardown()


def test_what_somebody_saw_to_is_not_waited_for() -> None:
    """The client closes at once: nothing of it is under way any more."""
    one = Settling()
    one.begin(kind=PLAIN, word="session", patience=0.0, seed=3)
    one.start(client="a", fates=["unread"], in_block=False, deadline=None, steps=0)
    one.wait(seconds=7.0)  # between two looks, which would wake it, too
    one.resolve(number=0)
    before = one.loop.now
    one.is_closing = True
    one.do(one.client.aclose(deadline=500.0))
    assert one.loop.now - before < 1.0
    one.teardown()


def test_the_stops_of_others_are_not_hurried() -> None:
    """Somebody saw to one of two: the other one is asked for again when its time comes."""
    one = Settling()
    one.begin(kind=PLAIN, word="session", patience=5.0, seed=3)
    one.start_many(fates=["good", "good"])
    one.wait(seconds=1.0)
    one.break_down(seconds=130.0)
    for _ in range(2):
        one.stop(number=0, steps=1)
    one.wait(seconds=131.0)
    resolved, other = (str(found.session_id) for found in one.client.unresolved)
    one.resolve(number=0)
    one.wait(seconds=1.0)
    assert [found.session_id for found in one.client.unresolved] == [other]
    one.wait(seconds=60.0)
    assert one.client.unresolved == ()
    assert not one.face.server.sessions[resolved].ended
    assert one.face.server.sessions[other].ended
    one.teardown()
