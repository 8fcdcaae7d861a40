"""The eight types of the contract, and what is checked when a request is made."""

from __future__ import annotations

import math
from typing import Any, cast

import attrs
import pytest

import equos_async
from equos_async import (
    AgentProvider,
    ConfigurationError,
    CreateSessionPassRequest,
    EquosParticipantIdentity,
    EquosResourceReference,
    SessionStatus,
)

# Spelled by hand: "name?" may be left out. Of answers everything but what nobody can do without.
FIELDS = {
    "CreateSessionPassRequest": "name client? max_duration? avatar agent additional_ctx? "
    "template_vars? consumer_identity",
    "CreateEquosSessionResponse": "session consumer_access_token? remote_agent_access_token?",
    "EquosSession": "id organization_id? freemium? name? provider? client? status? max_duration? "
    "additional_ctx? template_vars? host? avatar_id? avatar? agent_id? agent? knowledge_base_id? "
    "knowledge_base? remote_agent_identity? transcript? started_at? ended_at? created_at? "
    "updated_at?",
    "EquosSessionServer": "server_url",
    "EquosAvatar": "id? organization_id? identity? name? description? client? thumbnail_url? "
    "agent_id? agent? created_at? updated_at?",
    "EquosAgent": "id? organization_id? name? provider? client? model? voice? instructions? "
    "greeting_msg? remote_id? search? emotions? memory? created_at? updated_at?",
    "EquosResourceReference": "id",
    "EquosParticipantIdentity": "identity name",
}
ADA = EquosParticipantIdentity(identity="user-7", name="Ada")


@pytest.mark.parametrize("name", FIELDS)
def test_each_type_has_its_fields(name: str) -> None:
    """All fields of the contract are there, and those may be left out that may."""
    fields = attrs.fields(getattr(equos_async, name))
    found = [f.name + ("" if f.default is attrs.NOTHING else "?") for f in fields]
    assert found == FIELDS[name].split()


def make(**changes: Any) -> CreateSessionPassRequest:
    """A valid request, changed."""
    given: dict[str, Any] = {
        "name": "call",
        "avatar": "av_1",
        "agent": "ag_1",
        "consumer_identity": ADA,
    }
    return CreateSessionPassRequest(**{**given, **changes})


def test_an_id_stands_for_a_reference() -> None:
    """``avatar="av_1"`` and ``avatar=EquosResourceReference("av_1")`` are the same."""
    assert (
        make(avatar=EquosResourceReference("av_1"), agent=EquosResourceReference("ag_1")) == make()
    )


def test_a_template_is_varied_and_does_not_change() -> None:
    """It is frozen, its variables are a copy, and ``attrs.evolve`` makes another one."""
    variables = {"name": "Ada"}
    template: Any = make(template_vars=variables)
    variables["name"] = "Eve"
    assert template.template_vars == {"name": "Ada"}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        template.name = "other"
    assert attrs.evolve(template, name="other").template_vars == {"name": "Ada"}


@pytest.mark.parametrize("max_duration", [1, 0.5, 600, 10**9])
def test_durations(max_duration: float) -> None:
    """Positive finite numbers of seconds."""
    assert make(max_duration=max_duration).max_duration == max_duration


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", 7),
        ("name", "\ud800"),
        ("client", 7),
        *[("max_duration", v) for v in (0, -1, math.nan, math.inf, 10**400, True, "600")],
        ("avatar", ""),
        ("avatar", None),
        ("avatar", EquosResourceReference("")),
        ("avatar", EquosResourceReference(cast("Any", 7))),
        ("agent", 7),
        ("additional_ctx", 7),
        ("additional_ctx", "\udfff"),
        ("template_vars", "a=b"),
        ("template_vars", [("a", "b")]),
        ("template_vars", {"a": 1}),
        ("template_vars", {1: "a"}),
        ("consumer_identity", None),
        ("consumer_identity", "user-7"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    """The error says which field, and what it takes."""
    with pytest.raises(ConfigurationError, match=rf"^{field}[ :]"):
        make(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("identity", ""), ("identity", None), ("name", None), ("name", 7)]
)
def test_a_person_needs_an_identity(field: str, value: Any) -> None:
    """An identity, and a display name that may be empty."""
    assert EquosParticipantIdentity(identity="user-7", name="").name == ""
    given: dict[str, Any] = {"identity": "user-7", "name": "Ada", field: value}
    with pytest.raises(ConfigurationError, match=rf"^{field} "):
        EquosParticipantIdentity(**given)


def test_reprs_tell_no_secrets() -> None:
    """Identities and texts of people are masked."""
    shown = repr(make(additional_ctx="ctx-secret", template_vars={"k": "var-secret"}))
    assert "user-7" not in shown
    assert "Ada" not in shown
    assert "secret" not in shown
    assert "additional_ctx=None" in repr(make())


def test_known_values_are_named() -> None:
    """Open sets of strings have constants for the values that are known."""
    assert SessionStatus.ENDED == "ended"
    assert AgentProvider.GEMINI == "gemini"
