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
    from .fleet.values import DrainReport, FleetEvent, FleetStats, SessionEnd
    from .ledger.protocol import LedgerRow, Placing, SessionLedger
    from .ledger.redis import RedisLedger
    from .ledger.sqlite import SQLiteLedger
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
    from .settings import Limits, RetryPolicy, Timeouts

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

# Where the names live; what costs most to import comes last.
_HOMES = (
    "errors",
    "models",
    "settings",
    "clock",
    "events",
    "fleet.values",
    "ledger.protocol",
    "ledger.sqlite",
    "ledger.redis",
    "client",
    "fleet._session",
    "fleet._fleet",
)


def __getattr__(name: str) -> object:
    # Loaded on first use: the pytest plugin lives below this package, and every test run of a
    # project that has it installed would pay for importing all of it, aiohttp included.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (import_module(f"{__name__}.{home}") for home in _HOMES)
    value: object = next(vars(module)[name] for module in modules if name in vars(module))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
