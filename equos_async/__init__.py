"""The asyncio client for Equos live avatar sessions."""

from __future__ import annotations

from ._version import __version__
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
from .fleet_keeper import LiveSession
from .fleet_values import DrainReport, FleetEvent, FleetStats, SessionEnd
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
    "Limits",
    "LiveSession",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "RateLimitError",
    "RetryPolicy",
    "SessionEnd",
    "SessionFleet",
    "SessionStatus",
    "StartOutcomeUnknownError",
    "StartUnreadableError",
    "Timeouts",
    "UnprocessableEntityError",
    "Unresolved",
    "__version__",
]
