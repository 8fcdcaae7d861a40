"""One row of a ledger: every pair of what it is to be and what is known of it; its key's text."""

from __future__ import annotations

import enum
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equos_async import ConfigurationError
from equos_async.fleet._rows import Confirmed, Desired, Step, key_of, step, text_of

REST, PLACE, RECORD, REMOVE, FORGET = Step.REST, Step.PLACE, Step.RECORD, Step.REMOVE, Step.FORGET

#                   nothing queued  intent  session claimed unsure
TABLE = {
    Desired.PLACE: (PLACE, REST, REST, REST, REST, PLACE),
    Desired.INTENT: (RECORD, RECORD, REST, REST, REST, RECORD),
    Desired.SESSION: (RECORD, RECORD, RECORD, REST, REST, RECORD),
    Desired.ABSENT: (FORGET, REMOVE, REMOVE, REMOVE, REMOVE, REMOVE),
}


@pytest.mark.parametrize("desired", Desired)
def test_every_cell(desired: Desired) -> None:
    """There is one thing to do for each pair, and it is this one."""
    assert tuple(step(desired, confirmed) for confirmed in Confirmed) == TABLE[desired]


def test_an_agreement_is_reached() -> None:
    """From every state the answers of an engine lead to a state without a further step."""
    answers = {PLACE: Confirmed.INTENT, REMOVE: Confirmed.NOTHING}
    for desired in Desired:
        recorded = Confirmed.SESSION if desired is Desired.SESSION else Confirmed.INTENT
        for confirmed in Confirmed:
            what = step(desired, confirmed)
            after = {**answers, RECORD: recorded}.get(what, confirmed)
            assert step(desired, after) in {REST, FORGET}


class Guild(enum.IntEnum):
    """A key that is an integer with a name."""

    HOME = 7


class Name(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    """A key that is a string with a name."""

    HOME = "home"


@given(st.text(st.characters(codec="utf-8")) | st.from_regex(r"\A\"?-?[0-9]{0,3}\"?\Z"))
def test_a_string_comes_back(key: str) -> None:
    """It is the same string again, even if it looks like a number or is in quotes."""
    back = key_of(text_of(key))
    assert (back, type(back)) == (key, str)


@given(st.integers(-(10**100) + 1, 10**100 - 1))
def test_a_number_comes_back(key: int) -> None:
    """As the number that it was, and as it was always written."""
    assert text_of(key) == str(key)
    back = key_of(text_of(key))
    assert (back, type(back)) == (key, int)


@given(st.lists(st.integers(-20, 20) | st.from_regex(r"\A\"?-?[0-9]{0,2}\"?\Z"), unique=True))
def test_no_two_keys_are_one(keys: list[Hashable]) -> None:
    """Two keys that differ in Python differ in the ledger."""
    assert len({text_of(key) for key in keys}) == len(set(keys))


def test_what_stands_for_a_plain_one() -> None:
    """An enum's members are as what they equal."""
    assert (text_of(Guild.HOME), text_of(Name.HOME)) == ("7", "home")


@pytest.mark.parametrize("key", [True, 1.5, None, ("a", 1), b"x"])
def test_other_kinds(key: Hashable) -> None:
    """Only strings and integers are the same on every machine."""
    with pytest.raises(ConfigurationError, match="must be a string or an integer"):
        text_of(key)


@pytest.mark.parametrize("key", [10**100, -(10**100), 10**5000], ids=["100", "minus", "5000"])
def test_numbers_without_end(key: int) -> None:
    """A key with more than a hundred digits is refused."""
    with pytest.raises(ConfigurationError, match="at most 100 digits"):
        text_of(key)
