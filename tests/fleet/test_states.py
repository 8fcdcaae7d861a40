"""The life of a session: the page's table is the code's, and no other step is possible."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from equos_async.fleet._records import Records
from equos_async.fleet._states import KEYED, NEXT, State

PAGE = Path(__file__).parents[2] / ".docs" / "fleet.md"
RUNNING = (State.LIVE, State.STOPPING)


@define(eq=False)
class Stub:
    """A session of which only the key and the state matter."""

    key: Hashable
    state: State = State.WAITING

    @property
    def session_id(self) -> str:
        """One of its own."""
        return f"s-{id(self)}"


def rows() -> list[tuple[State, State, str]]:
    """The page's rows: from, to, and what is held then."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.split("## The life of a session")[1].split("\n## ")[0]
    found = re.findall(r"^\| (\w+) \| (\w+) \|[^|]*\| ([^|]*) \|", section, re.MULTILINE)
    return [(State(a), State(b), held) for a, b, held in found if a != "from"]


def test_the_page_is_the_code() -> None:
    """Each row of the page is a step of the code, and the other way round."""
    told = [(one, other) for one, other, _ in rows()]
    assert len(set(told)) == len(told)
    assert set(told) == {(one, other) for one, following in NEXT.items() for other in following}


def test_the_page_tells_who_holds_a_key() -> None:
    """A session holds its key in the states that the page names."""
    for _, to, held in rows():
        assert ("key" in held.split(", ")) == (to in KEYED), to


STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(State)), max_size=60)


@given(STEPS)
def test_no_sequence_does_the_impossible(steps: list[tuple[int, State]]) -> None:
    """Possible steps keep the counts and the keys; an impossible one raises and changes nothing."""
    records: Records[Stub] = Records()
    stubs = [Stub(f"k{n}") for n in range(4)]
    for stub in stubs:
        records.add(stub, holds_key=True)
    for index, to in steps:
        stub, before = stubs[index], stubs[index].state
        if to in NEXT[before]:
            records.move(stub, to)
            assert stub.state is to
        else:
            with pytest.raises(RuntimeError, match=f"that is {before.value} cannot be {to.value}"):
                records.move(stub, to)
            assert stub.state is before
        for state in set(State) - {State.ENDED}:
            there = [one for one in stubs if one.state is state]
            assert records.count(state) == len(there)
            assert set(records.every(state)) == set(there)
        running = {one.key: one for one in stubs if one.state in RUNNING}
        assert dict(records) == running
        assert len(records) == len(running)
        for one in stubs:
            assert (records.by_id(one.session_id) is one) == (one.state in RUNNING)
        for one in stubs:
            assert (records.holder(one.key) is one) == (one.state in KEYED)


def test_a_key_is_handed_on() -> None:
    """A live replacement takes the key and may give it back; no other session can get it."""
    records: Records[Stub] = Records()
    old, new = Stub("k"), Stub("k")
    records.add(old, holds_key=True)
    records.add(new, holds_key=False)
    for stub in (old, new):
        with pytest.raises(KeyError):
            _ = records["k"]
        records.move(old, State.STARTING) if stub is old else records.move(old, State.LIVE)
    with pytest.raises(RuntimeError, match="only a live session can pass its key on"):
        records.hand_key(old, new)
    for to in (State.STARTING, State.LIVE):
        records.move(new, to)
    records.hand_key(old, new)
    with pytest.raises(RuntimeError, match="only a live session can pass its key on"):
        records.hand_key(old, new)
    for to in (State.STOPPING, State.ENDED):
        records.move(old, to)
    assert dict(records) == {"k": new}
    assert len(records) == 1
