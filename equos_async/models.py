"""The values of the session-passes API: frozen attrs classes with the vendor's names.

Fields follow the vendor's published types of API version 3; only their spelling is Python's.
What the server leaves out, sends as null or with another type is ``None``: a paid session must
not be lost for a field that nobody needs, and the vendor loosens fields from release to release.
Sets of strings that grow with the vendor's releases (status, provider, model, voice) stay ``str``:
an unknown value never fails a call.

What a person said, who they are and what lets someone join a room is masked in every repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, cast

from attrs import Attribute, field, frozen

from . import _validate
from .errors import ConfigurationError


class SessionStatus:
    """The values of ``EquosSession.status`` that are known so far."""

    STARTING: Final = "starting"
    RUNNING: Final = "running"
    ENDED: Final = "ended"
    ERROR: Final = "error"
    BLOCKED: Final = "blocked"


class AgentProvider:
    """The values of ``EquosAgent.provider`` that are known so far."""

    OPENAI: Final = "openai"
    GEMINI: Final = "gemini"
    ELEVENLABS: Final = "elevenlabs"


def masked(value: object) -> str:
    """A repr that tells whether there is a value, and nothing else."""
    return "None" if value is None else "'***'"


def _text(_: object, attribute: Attribute[Any], value: object) -> None:
    _validate.text(attribute.name, value)


def _any_text(_: object, attribute: Attribute[Any], value: object) -> None:
    _validate.text(attribute.name, value, empty=True)


def _optional_text(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _validate.text(attribute.name, value, empty=True)


def _optional_seconds(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _validate.number(attribute.name, value)


@frozen
class EquosResourceReference:
    """Names an avatar or an agent that exists already, by its id."""

    id: str


def _to_reference(value: str | EquosResourceReference) -> EquosResourceReference:
    return EquosResourceReference(value) if isinstance(value, str) else value


def _reference(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, EquosResourceReference):
        raise ConfigurationError(
            f"{attribute.name} must be an id or an EquosResourceReference, "
            f"not {type(value).__name__}"
        )
    _validate.text(attribute.name, value.id)


def _to_dict(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    # A copy: a template must not change under a call that is being repeated.
    return dict(value) if isinstance(value, Mapping) else value


def _template_vars(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"{attribute.name} must map strings to strings, not be {type(value).__name__}"
        )
    for name, content in cast("dict[object, object]", value).items():
        _validate.text(f"{attribute.name}: each name", name, empty=True)
        _validate.text(f"{attribute.name}: each value", content, empty=True)


@frozen
class EquosParticipantIdentity:
    """The end user who talks to the agent: LiveKit identity and display name."""

    identity: str = field(validator=_text, repr=masked)
    name: str = field(validator=_any_text, repr=masked)


def _identity(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, EquosParticipantIdentity):
        raise ConfigurationError(
            f"{attribute.name} must be an EquosParticipantIdentity, not {type(value).__name__}"
        )


@frozen(kw_only=True)
class CreateSessionPassRequest:
    """What ``start_session`` sends; also a template, varied with :func:`attrs.evolve`.

    Attributes:
        name: What people call the session.
        avatar: An existing avatar, by id or reference.
        agent: An existing agent, by id or reference.
        consumer_identity: The end user who talks to the agent.
        client: Your own identifier for whom the session is.
        max_duration: Seconds after which the server ends the session by itself. Without it, a
            session that nobody stops runs until the organisation's limit.
        additional_ctx: More context for the agent.
        template_vars: Values for the variables in the agent's instructions.

    Raises:
        ConfigurationError: A field has the wrong type or an impossible value.
    """

    name: str = field(validator=_text)
    client: str | None = field(default=None, validator=_optional_text)
    max_duration: float | None = field(default=None, validator=_optional_seconds)
    avatar: EquosResourceReference = field(converter=_to_reference, validator=_reference)
    agent: EquosResourceReference = field(converter=_to_reference, validator=_reference)
    additional_ctx: str | None = field(default=None, validator=_optional_text, repr=masked)
    template_vars: Mapping[str, str] | None = field(
        default=None, converter=_to_dict, validator=_template_vars, repr=masked
    )
    consumer_identity: EquosParticipantIdentity = field(validator=_identity, repr=masked)


@frozen(kw_only=True)
class EquosSessionServer:
    """Where the session's room is."""

    server_url: str
    """The LiveKit server, ``wss://…``; empty where an answer does not name it.

    The answer to a start names it, or is refused as unreadable.
    """


@frozen(kw_only=True)
class EquosAvatar:
    """An avatar as the server describes it.

    ``identity`` is its LiveKit identity, in the rooms of its sessions; ``agent_id`` and ``agent``
    are as the server sent them.
    """

    id: str | None = None
    organization_id: str | None = None
    identity: str | None = field(default=None, repr=masked)
    name: str | None = None
    description: str | None = None
    client: str | None = None
    thumbnail_url: str | None = None
    agent_id: Any = field(default=None, repr=False)
    agent: Any = field(default=None, repr=False)
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen(kw_only=True)
class EquosAgent:
    """An agent as the server describes it.

    ``provider`` is a value of :class:`AgentProvider`, or a newer one; ``model`` and ``voice`` are
    the provider's own names.
    """

    id: str | None = None
    organization_id: str | None = None
    name: str | None = None
    provider: str | None = None
    client: str | None = None
    model: str | None = None
    voice: str | None = None
    instructions: str | None = field(default=None, repr=masked)
    greeting_msg: str | None = field(default=None, repr=masked)
    remote_id: str | None = None
    search: bool | None = None
    emotions: bool | None = None
    memory: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen(kw_only=True)
class EquosSession:
    """A session as the server describes it.

    Only ``id`` is sure to be there, and ``host.server_url`` in the answer to a start: without
    them a caller can do nothing. Any other field is None where the answer lacks it, or holds a
    value of another type than the contract says.

    ``status`` is a value of :class:`SessionStatus`, or a newer one; ``max_duration`` is in
    seconds, and every date has a timezone. ``additional_ctx``, ``template_vars``,
    ``remote_agent_identity`` and ``transcript`` are as the server sent them.
    """

    id: str
    organization_id: str | None = None
    freemium: bool | None = None
    name: str | None = None
    provider: str | None = None
    client: str | None = None
    status: str | None = None
    max_duration: float | None = None
    additional_ctx: str | None = field(default=None, repr=masked)
    template_vars: Mapping[str, Any] | None = field(default=None, repr=masked)
    host: EquosSessionServer = EquosSessionServer(server_url="")
    avatar_id: str | None = None
    avatar: EquosAvatar | None = None
    agent_id: str | None = None
    agent: EquosAgent | None = None
    knowledge_base_id: str | None = None
    knowledge_base: EquosResourceReference | None = None
    remote_agent_identity: Any = field(default=None, repr=masked)
    transcript: Any = field(default=None, repr=masked)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen(kw_only=True)
class CreateEquosSessionResponse:
    """A started session, and the tokens that let people join its room.

    ``consumer_access_token`` and ``remote_agent_access_token`` are LiveKit JWTs: secrets.
    """

    session: EquosSession
    consumer_access_token: str | None = field(default=None, repr=masked)
    remote_agent_access_token: str | None = field(default=None, repr=masked)
