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
    from .fleet import SessionFleet
    from .fleet_session import LiveSession
    from .fleet_values import DrainReport, FleetEvent, FleetStats, SessionEnd
    from .ledger import LedgerRow, Placing, SessionLedger
    from .ledger_redis import RedisLedger
    from .ledger_sqlite import SQLiteLedger
    from .models import (
        AgentProvider,
        CreateEquosSessionResponse,
        CreateSessionPassRequest,
        EquosAgent,
        EquosAvatar,
        EquosParticipantIdentity,
        EquosResourceReference,
        EquosSession,
        EquosSessionServer,
        SessionStatus,
    )
    from .retry import Limits, RetryPolicy, Timeouts
    from .waiting import Clock

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
    "CreateEquosSessionResponse",
    "CreateSessionPassRequest",
    "DrainReport",
    "EquosAgent",
    "EquosAvatar",
    "EquosClient",
    "EquosError",
    "EquosParticipantIdentity",
    "EquosResourceReference",
    "EquosSession",
    "EquosSessionServer",
    "Event",
    "FleetEvent",
    "FleetFullError",
    "FleetStats",
    "InternalServerError",
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
    "StartOutcomeUnknownError",
    "StartUnreadableError",
    "Timeouts",
    "UnprocessableEntityError",
    "Unresolved",
    "__version__",
]

# Where each name lives: to load one is to load its module, and what that needs.
_HOMES: dict[str, str] = {
    "APIConnectionError": "errors",
    "APIStatusError": "errors",
    "APITimeoutError": "errors",
    "AgentProvider": "models",
    "AuthenticationError": "errors",
    "BadRequestError": "errors",
    "ClientClosedError": "errors",
    "Clock": "waiting",
    "ConfigurationError": "errors",
    "ConflictError": "errors",
    "CreateEquosSessionResponse": "models",
    "CreateSessionPassRequest": "models",
    "DrainReport": "fleet_values",
    "EquosAgent": "models",
    "EquosAvatar": "models",
    "EquosClient": "client",
    "EquosError": "errors",
    "EquosParticipantIdentity": "models",
    "EquosResourceReference": "models",
    "EquosSession": "models",
    "EquosSessionServer": "models",
    "Event": "events",
    "FleetEvent": "fleet_values",
    "FleetFullError": "errors",
    "FleetStats": "fleet_values",
    "InternalServerError": "errors",
    "LedgerError": "errors",
    "LedgerRow": "ledger",
    "Limits": "retry",
    "LiveSession": "fleet_session",
    "NotFoundError": "errors",
    "OverloadedError": "errors",
    "PermissionDeniedError": "errors",
    "Placing": "ledger",
    "RateLimitError": "errors",
    "RedisLedger": "ledger_redis",
    "RetryPolicy": "retry",
    "SQLiteLedger": "ledger_sqlite",
    "SessionEnd": "fleet_values",
    "SessionFleet": "fleet",
    "SessionLedger": "ledger",
    "SessionStatus": "models",
    "StartOutcomeUnknownError": "errors",
    "StartUnreadableError": "errors",
    "Timeouts": "retry",
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
