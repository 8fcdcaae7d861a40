"""Equal descriptions are one value, and never another one than the answer has."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equos_async import EquosAgent, EquosAvatar
from equos_async._api.codec import structure
from equos_async._api.shared import MAX_KNOWN

AGENT: dict[str, Any] = {
    "id": "ag_shared",
    "name": "Support",
    "instructions": "You help.",
    "search": True,
    "createdAt": "2025-12-10T09:11:47.000Z",
}
AVATAR: dict[str, Any] = {
    "id": "av_shared",
    "identity": "ada",
    "agent": {"id": "ag_1", "temperature": 1},
}


def read(cls: Any, found: dict[str, Any]) -> Any:
    """The value of a description in an answer; each answer is parsed separately."""
    return structure(copy.deepcopy(found), cls)


def test_equal_descriptions_are_one_value() -> None:
    """Thousands of sessions of one agent hold its texts once."""
    first, second = read(EquosAgent, AGENT), read(EquosAgent, AGENT)
    assert first.value is second.value
    assert second.unreadable == ()


def test_a_dict_is_the_callers_own() -> None:
    """It can be changed; what others have of the same avatar cannot."""
    first, second, third = (read(EquosAvatar, AVATAR).value for _ in range(3))
    assert first == second == third
    assert second.identity is first.identity
    first.agent["temperature"] = second.agent["temperature"] = 2
    assert third.agent == AVATAR["agent"]
    assert read(EquosAvatar, AVATAR).value.agent == AVATAR["agent"]


def test_the_texts_in_a_dict_are_held_once() -> None:
    """Those of the first answer; each answer brings its own."""
    known, first, second = (
        structure(json.loads(json.dumps(AVATAR)), EquosAvatar).value for _ in range(3)
    )
    assert first.agent is not second.agent
    assert first.agent["id"] is second.agent["id"] is known.agent["id"]


@pytest.mark.parametrize(
    ("change", "unreadable"),
    [
        ({"instructions": "You help more."}, ()),
        ({"search": False}, ()),
        ({"search": 1}, ("$.search",)),  # which is equal to True
        ({"createdAt": "yesterday"}, ("$.createdAt",)),
        ({"name": None}, ()),
        ({"id": None}, ()),
        ({"id": ["ag_shared"]}, ("$.id",)),
    ],
)
def test_another_description_is_read(change: dict[str, Any], unreadable: tuple[str, ...]) -> None:
    """Of the same agent, too: it was edited in between, or an answer is damaged."""
    before = read(EquosAgent, AGENT)
    changed = read(EquosAgent, AGENT | change)
    assert changed.unreadable == unreadable
    assert changed.value != before.value
    assert read(EquosAgent, AGENT).value == before.value


@pytest.mark.parametrize("inner", [[1], {"deep": {}}, {"deep": []}])
def test_what_can_be_changed_deep_inside_is_not_shared(inner: object) -> None:
    """No copies of whole trees are made to share a text."""
    found = AVATAR | {"id": "av_deep", "agent": inner}
    first, second = read(EquosAvatar, found).value, read(EquosAvatar, found).value
    assert first == second
    assert first.agent is not second.agent


def test_a_number_inside_is_not_taken_for_another() -> None:
    """JSON has 1, 1.0 and true, and Python says that they are equal."""
    for temperature in (1, True, 1.0):
        agent = read(EquosAvatar, AVATAR | {"agent": {"temperature": temperature}}).value.agent
        assert type(agent["temperature"]) is type(temperature)


def test_only_a_few_are_kept() -> None:
    """A service with an agent for each user does not keep them all."""
    first = read(EquosAgent, AGENT).value
    for number in range(MAX_KNOWN):
        read(EquosAgent, AGENT | {"id": f"ag_shared_{number}"})
    again = read(EquosAgent, AGENT).value
    assert again == first
    assert again is not first


PLAIN = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text(max_size=2)
AGENTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("id", "name", "search", "memory", "createdAt", "instructions"), PLAIN),
)


@given(st.lists(AGENTS | st.fixed_dictionaries({"id": st.just("1"), "agent": AGENTS}), max_size=6))
def test_what_was_read_before_changes_nothing(answers: list[dict[str, Any]]) -> None:
    """Whatever came before, a description is read as if it were the first."""
    for found in answers:
        value = read(EquosAvatar, found).value
        expected = {name: found.get(name) for name in ("id", "name")}
        for name, one in expected.items():
            assert getattr(value, name) == (one if isinstance(one, str) else None)
        assert repr(value.agent) == repr(found.get("agent"))
