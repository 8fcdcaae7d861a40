"""The values of the API: frozen attrs classes with the vendor's names.

Fields follow the vendor's published types of API version 3; only their spelling is Python's. A
field that the server leaves out, sends as null or with another type is ``None``: a paid session
must not be lost because of a field that the caller may not need, and the vendor makes more fields
optional with each release. Status, provider, model and voice are of type ``str``, because the
vendor adds values with new releases: an unknown value never makes a call fail.

Texts of people, identities and tokens are masked in every repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, cast

from attrs import Attribute, field, frozen

from . import _validate
from ._marker import without_marker
from .errors import ConfigurationError


class SessionStatus:
    """The known values of ``EquosSession.status``."""

    STARTING: Final = "starting"
    RUNNING: Final = "running"
    ENDED: Final = "ended"
    ERROR: Final = "error"
    BLOCKED: Final = "blocked"


class ConversationStatus:
    """The known values of ``EquosConversation.status``."""

    RUNNING: Final = "running"
    ENDED: Final = "ended"
    ERROR: Final = "error"
    BLOCKED: Final = "blocked"


class AgentProvider:
    """The known values of ``EquosAgent.provider``."""

    OPENAI: Final = "openai"
    GEMINI: Final = "gemini"
    ELEVENLABS: Final = "elevenlabs"


def masked(value: object) -> str:
    """A repr that shows only whether there is a value."""
    return "None" if value is None else "'***'"


def _plain(value: str) -> str:
    return _validate.plain(value)


def _plain_or_none(value: str | None) -> str | None:
    return _validate.plain(value)


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
    """A reference to an existing avatar or agent, by its id."""

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
    # A copy, because a request must not change while its call is retried.
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
    """A participant, usually the end user: LiveKit identity and display name."""

    identity: str = field(validator=_text, repr=masked)
    name: str = field(validator=_any_text, repr=masked)


def _identity(_: object, attribute: Attribute[Any], value: object) -> None:
    _validate.instance(attribute.name, value, EquosParticipantIdentity)


def _optional_identity(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _validate.instance(attribute.name, value, EquosParticipantIdentity)


@frozen(kw_only=True)
class CreateSessionPassRequest:
    """The request of ``start_session``; frozen, so use :func:`attrs.evolve` to vary it.

    Attributes:
        name: A name for people.
        avatar: An existing avatar, by id or reference.
        agent: An existing agent, by id or reference.
        consumer_identity: The end user who talks to the agent.
        client: Your own identifier of the customer that the session is for.
        max_duration: Seconds after which the server ends the session by itself. Without it, a
            session that is not stopped runs until the organisation's limit.
        additional_ctx: Additional context for the agent.
        template_vars: Values for the variables in the agent's instructions.

    Raises:
        ConfigurationError: A field has the wrong type or an impossible value.
    """

    name: str = field(converter=_plain, validator=_text)
    client: str | None = field(default=None, converter=_plain_or_none, validator=_optional_text)
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
    """The LiveKit server of a session's room."""

    server_url: str
    """The server's URL, ``wss://…``; empty if an answer does not name it.

    The answer to a start always names it; an answer without it is ``StartUnreadableError``.
    """


@frozen(kw_only=True)
class EquosAvatar:
    """An avatar as the server describes it.

    ``identity`` is its LiveKit identity in the rooms of its sessions; ``agent_id`` and ``agent``
    are unchanged from the answer.
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

    Only ``id``, and in the answer to a start ``host.server_url``, are always set. Any other field
    is None if the answer lacks it, or if its value has a wrong type.

    ``status`` is a value of :class:`SessionStatus`, or a newer one; ``max_duration`` is in seconds,
    and every date has a timezone. ``additional_ctx``, ``template_vars``, ``remote_agent_identity``
    and ``transcript`` are unchanged from the answer.
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
    template_vars: Mapping[str, Any] | None = field(
        default=None, converter=without_marker, repr=masked
    )
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


@frozen(kw_only=True)
class EquosConversationHost:
    """Your own LiveKit server, on which a conversation takes place.

    Attributes:
        server_url: Its URL, ``wss://…``.
        access_token: A token with which the avatar joins a room there: a secret.
    """

    server_url: str = field(validator=_text)
    access_token: str = field(validator=_text, repr=masked)


def _optional_host(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _validate.instance(attribute.name, value, EquosConversationHost)


@frozen(kw_only=True)
class CreateEquosConversationRequest:
    """The request of ``start_conversation``; frozen, so use :func:`attrs.evolve` to vary it.

    Attributes:
        name: A name for people.
        character_id: An existing character.
        client: Your own identifier of the customer that the conversation is for.
        host: Your own LiveKit server, instead of the vendor's.
        remote_agent: Your own agent, which speaks for the character.
        consumer: The end user who talks to the character.
        max_seconds: Seconds after which the server ends the conversation by itself. Without it, a
            conversation that is not stopped runs until the organisation's limit.
        prompt_ctx: Additional context for the character.
        prompt_template_vars: Values for the variables in the character's prompt.

    Raises:
        ConfigurationError: A field has the wrong type or an impossible value.
    """

    name: str = field(converter=_plain, validator=_text)
    character_id: str = field(validator=_text)
    client: str | None = field(default=None, converter=_plain_or_none, validator=_optional_text)
    host: EquosConversationHost | None = field(default=None, validator=_optional_host)
    remote_agent: EquosParticipantIdentity | None = field(
        default=None, validator=_optional_identity, repr=masked
    )
    consumer: EquosParticipantIdentity | None = field(
        default=None, validator=_optional_identity, repr=masked
    )
    max_seconds: float | None = field(default=None, validator=_optional_seconds)
    prompt_ctx: str | None = field(default=None, validator=_optional_text, repr=masked)
    prompt_template_vars: Mapping[str, str] | None = field(
        default=None, converter=_to_dict, validator=_template_vars, repr=masked
    )


@frozen(kw_only=True)
class EquosCharacter:
    """A character as the server describes it.

    ``livekit_identity`` is its identity in the rooms of its conversations; ``face``, ``voice``,
    ``brain`` and ``knowledge_base`` are unchanged from the answer.
    """

    id: str | None = None
    organization_id: str | None = None
    name: str | None = None
    livekit_identity: str | None = field(default=None, repr=masked)
    search: bool | None = None
    client: str | None = None
    face_id: str | None = None
    face: Any = field(default=None, repr=False)
    voice_id: str | None = None
    voice: Any = field(default=None, repr=False)
    brain_id: str | None = None
    brain: Any = field(default=None, repr=False)
    knowledge_base_id: str | None = None
    knowledge_base: Any = field(default=None, repr=False)
    elevenlabs_agent_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen(kw_only=True)
class EquosConversationUtterance:
    """One utterance; ``author`` is ``user``, ``character``, or a newer value."""

    id: str | None = None
    author: str | None = None
    content: str | None = field(default=None, repr=masked)
    recorded_at: datetime | None = None


@frozen(kw_only=True)
class EquosTimelineEntry:
    """Something that happened in a conversation; ``type`` is the server's word for it."""

    type: str | None = None
    author: str | None = None
    content: str | None = field(default=None, repr=masked)
    recorded_at: datetime | None = None


@frozen(kw_only=True)
class EquosConversation:
    """A conversation as the server describes it.

    Only ``id`` is always set. Any other field is None if the answer lacks it, or if its value has a
    wrong type; in a list, only elements of a wrong type are dropped.

    ``status`` is a value of :class:`ConversationStatus`, or a newer one; ``max_seconds`` is in
    seconds, and every date has a timezone. ``server_url`` is the LiveKit server to join, and
    ``joined_at`` the time when somebody joined. ``prompt_template_vars`` is unchanged from the
    answer.
    """

    id: str
    name: str | None = None
    status: str | None = None
    charge: bool | None = None
    charge_by_second: float | None = None
    max_seconds: float | None = None
    character_id: str | None = None
    character: EquosCharacter | None = None
    organization_id: str | None = None
    client: str | None = None
    room: str | None = None
    server_url: str | None = None
    remote_agent_name: str | None = field(default=None, repr=masked)
    remote_agent_identity: str | None = field(default=None, repr=masked)
    consumer_name: str | None = field(default=None, repr=masked)
    consumer_identity: str | None = field(default=None, repr=masked)
    prompt_ctx: str | None = field(default=None, repr=masked)
    prompt_template_vars: Mapping[str, Any] | None = field(
        default=None, converter=without_marker, repr=masked
    )
    transcript: tuple[EquosConversationUtterance, ...] | None = None
    timeline: tuple[EquosTimelineEntry, ...] | None = None
    joined_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen(kw_only=True)
class CreateEquosConversationResponse:
    """A started conversation, and the tokens that let people join its room.

    ``consumer_access_token`` and ``remote_agent_access_token`` are LiveKit JWTs: secrets. Only this
    answer has them: a conversation that is read later can be stopped, but not joined.
    """

    conversation: EquosConversation
    consumer_access_token: str | None = field(default=None, repr=masked)
    remote_agent_access_token: str | None = field(default=None, repr=masked)


@frozen(kw_only=True)
class HealthResponse:
    """The server's status and version."""

    status: str | None = None
    version: str | None = None
