"""The asyncio client for Equos live avatar sessions.

Begin with :class:`EquosClient`; :class:`SessionFleet` runs many sessions under one limit, and
``equos_async.testing`` is a local server to test against.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .client import EquosClient
    from .clock import Clock
    from .errors import (
        APIConnectionError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ClientClosedError,
        ConfigurationError,
        ConflictError,
        EquosError,
        FleetFullError,
        InternalServerError,
        KeyInUseError,
        LedgerError,
        NotFoundError,
        OverloadedError,
        PermissionDeniedError,
        RateLimitError,
        StartOutcomeUnknownError,
        StartUnreadableError,
        UnprocessableEntityError,
    )
    from .events import Event, Unresolved
    from .fleet._fleet import SessionFleet
    from .fleet._session import LiveSession
    from .fleet.values import (
        DrainReport,
        FleetEvent,
        FleetHealth,
        FleetStats,
        GroupStats,
        SessionEnd,
    )
    from .ledger.protocol import LedgerRow, Placing, SessionLedger
    from .ledger.redis import RedisLedger
    from .ledger.sqlite import SQLiteLedger
    from .models import (
        AgentProvider,
        ConversationStatus,
        CreateEquosConversationRequest,
        CreateEquosConversationResponse,
        CreateEquosSessionResponse,
        CreateSessionPassRequest,
        EquosAgent,
        EquosAvatar,
        EquosCharacter,
        EquosConversation,
        EquosConversationHost,
        EquosConversationUtterance,
        EquosParticipantIdentity,
        EquosResourceReference,
        EquosSession,
        EquosSessionServer,
        EquosTimelineEntry,
        HealthResponse,
        SessionStatus,
    )
    from .settings import Limits, RetryPolicy, Settle, Timeouts

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AgentProvider",
    "AuthenticationError",
    "BadRequestError",
    "ClientClosedError",
    "Clock",
    "ConfigurationError",
    "ConflictError",
    "ConversationStatus",
    "CreateEquosConversationRequest",
    "CreateEquosConversationResponse",
    "CreateEquosSessionResponse",
    "CreateSessionPassRequest",
    "DrainReport",
    "EquosAgent",
    "EquosAvatar",
    "EquosCharacter",
    "EquosClient",
    "EquosConversation",
    "EquosConversationHost",
    "EquosConversationUtterance",
    "EquosError",
    "EquosParticipantIdentity",
    "EquosResourceReference",
    "EquosSession",
    "EquosSessionServer",
    "EquosTimelineEntry",
    "Event",
    "FleetEvent",
    "FleetFullError",
    "FleetHealth",
    "FleetStats",
    "GroupStats",
    "HealthResponse",
    "InternalServerError",
    "KeyInUseError",
    "LedgerError",
    "LedgerRow",
    "Limits",
    "LiveSession",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "Placing",
    "RateLimitError",
    "RedisLedger",
    "RetryPolicy",
    "SQLiteLedger",
    "SessionEnd",
    "SessionFleet",
    "SessionLedger",
    "SessionStatus",
    "Settle",
    "StartOutcomeUnknownError",
    "StartUnreadableError",
    "Timeouts",
    "UnprocessableEntityError",
    "Unresolved",
    "__version__",
]

# The module of each name; loading a name loads its module, and the modules that it needs.
_HOMES: dict[str, str] = {
    "APIConnectionError": "errors",
    "APIStatusError": "errors",
    "APITimeoutError": "errors",
    "AgentProvider": "models",
    "AuthenticationError": "errors",
    "BadRequestError": "errors",
    "ClientClosedError": "errors",
    "Clock": "clock",
    "ConfigurationError": "errors",
    "ConflictError": "errors",
    "ConversationStatus": "models",
    "CreateEquosConversationRequest": "models",
    "CreateEquosConversationResponse": "models",
    "CreateEquosSessionResponse": "models",
    "CreateSessionPassRequest": "models",
    "DrainReport": "fleet.values",
    "EquosAgent": "models",
    "EquosAvatar": "models",
    "EquosCharacter": "models",
    "EquosClient": "client",
    "EquosConversation": "models",
    "EquosConversationHost": "models",
    "EquosConversationUtterance": "models",
    "EquosError": "errors",
    "EquosParticipantIdentity": "models",
    "EquosResourceReference": "models",
    "EquosSession": "models",
    "EquosSessionServer": "models",
    "EquosTimelineEntry": "models",
    "Event": "events",
    "FleetEvent": "fleet.values",
    "FleetFullError": "errors",
    "FleetHealth": "fleet.values",
    "FleetStats": "fleet.values",
    "GroupStats": "fleet.values",
    "HealthResponse": "models",
    "InternalServerError": "errors",
    "KeyInUseError": "errors",
    "LedgerError": "errors",
    "LedgerRow": "ledger.protocol",
    "Limits": "settings",
    "LiveSession": "fleet._session",
    "NotFoundError": "errors",
    "OverloadedError": "errors",
    "PermissionDeniedError": "errors",
    "Placing": "ledger.protocol",
    "RateLimitError": "errors",
    "RedisLedger": "ledger.redis",
    "RetryPolicy": "settings",
    "SQLiteLedger": "ledger.sqlite",
    "SessionEnd": "fleet.values",
    "SessionFleet": "fleet._fleet",
    "SessionLedger": "ledger.protocol",
    "SessionStatus": "models",
    "Settle": "settings",
    "StartOutcomeUnknownError": "errors",
    "StartUnreadableError": "errors",
    "Timeouts": "settings",
    "UnprocessableEntityError": "errors",
    "Unresolved": "events",
}


def __getattr__(name: str) -> object:
    # Loaded on first use: the pytest plugin lives below this package, and every test run of a
    # project that has it installed would pay for importing all of it, aiohttp included.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
