"""Every exception of the library.

::

    EquosError
    ├── ConfigurationError            a bad argument or setting; also a ValueError
    ├── ClientClosedError             the client was closed
    ├── FleetFullError                no free slot, or the session budget would be exceeded
    ├── KeyInUseError                 a fleet's key has a session already; nothing was sent
    ├── LedgerError                   the ledger's engine failed; for a start: nothing was sent
    ├── APIConnectionError            no usable answer; for a start: nothing was sent
    │   └── APITimeoutError
    ├── OverloadedError               refused locally: the server asked for a longer pause
    ├── APIStatusError                the server refused
    │   ├── BadRequestError           400
    │   ├── AuthenticationError       401
    │   ├── PermissionDeniedError     403
    │   ├── NotFoundError             404
    │   ├── ConflictError             409
    │   ├── UnprocessableEntityError  422
    │   ├── RateLimitError            429
    │   └── InternalServerError       5xx
    └── StartOutcomeUnknownError      sent, and no answer that can be trusted
        └── StartUnreadableError      a 2xx whose body was unusable

All of them pickle and copy. They hold plain values only: no key, no token, no request body and
no object of the HTTP library, not even as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

OperationName = Literal["start", "stop", "read"]
ResourceName = Literal["session", "conversation"]


class EquosError(Exception):
    """The base class: ``except EquosError`` catches every error of a call.

    Attributes:
        operation: ``"start"``, ``"stop"`` or ``"read"``; None if the error belongs to no call.
        attempts: How many requests were made for this call.
        session_id: The session or conversation that the error is about, if known.
        request_id: The server's ``X-Request-Id`` of the last answer, if it sent one.
    """

    operation: OperationName | None
    attempts: int
    session_id: str | None
    request_id: str | None

    def __init__(
        self,
        message: str = "",
        *,
        operation: OperationName | None = None,
        attempts: int = 0,
        session_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        # One positional argument, defaults for the rest: pickle and copy rebuild an exception
        # from `args` and then restore `__dict__`, so nothing is lost and nothing is needed.
        super().__init__(message)
        self.operation = operation
        self.attempts = attempts
        self.session_id = session_id
        self.request_id = request_id


class ConfigurationError(EquosError, ValueError):
    """An argument or a setting is wrong; raised before any I/O. The message names the field."""


class ClientClosedError(EquosError):
    """The client is closed or closing: nothing was sent for this call."""


class FleetFullError(EquosError):
    """The fleet has no free slot for this start, or its session budget would be exceeded.

    Attributes:
        retry_after: Seconds until a session of this fleet ends by itself whose slot the start could
            have, or until a restarted ledger accepts starts again; None if that is not known, or if
            waiting does not help, as with a spent budget.
        budget_left: Seconds of the session budget that are left; None without a budget.
    """

    retry_after: float | None
    budget_left: float | None

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        budget_left: float | None = None,
        operation: OperationName | None = None,
    ) -> None:
        super().__init__(message, operation=operation)
        self.retry_after = retry_after
        self.budget_left = budget_left


class KeyInUseError(EquosError):
    """The key already has a session, or a start in progress; nothing was sent.

    Attributes:
        key: The key.
        holder: The worker that holds the key, if the fleet has a ledger.
        session_id: The id of the key's session; None while it is being started.
    """

    key: Hashable
    holder: str | None

    def __init__(
        self,
        message: str = "",
        *,
        key: Hashable = None,
        holder: str | None = None,
        session_id: str | None = None,
        operation: OperationName | None = None,
    ) -> None:
        super().__init__(message, operation=operation, session_id=session_id)
        self.key = key
        self.holder = holder


class LedgerError(EquosError):
    """The ledger's engine failed or could not be reached. For a start: nothing was sent."""


class APIConnectionError(EquosError):
    """No usable answer came. For a start: nothing was sent, so nothing exists on the server."""


class APITimeoutError(APIConnectionError):
    """The deadline was over before a usable answer came. For a start: before anything was sent."""


class OverloadedError(EquosError):
    """Not sent, or not sent again: the server asked for a pause that ends after the deadline.

    For a start: no session exists, because every earlier attempt was refused or unsent.

    Attributes:
        retry_after: Seconds until the pause ends.
    """

    retry_after: float | None

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        operation: OperationName | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message, operation=operation, attempts=attempts)
        self.retry_after = retry_after


class APIStatusError(EquosError):
    """The server answered, and refused.

    Attributes:
        status: The HTTP status code.
        message: The server's message, or its messages joined; at most 2,048 characters.
        retry_after: Seconds that the server asked the client to wait; None without a valid value.
        body: The answer's body as text, for people to read; at most 2,048 characters.
    """

    status: int
    message: str
    retry_after: float | None
    body: str

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        retry_after: float | None = None,
        body: str = "",
        operation: OperationName | None = None,
        attempts: int = 0,
        session_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(
            message,
            operation=operation,
            attempts=attempts,
            session_id=session_id,
            request_id=request_id,
        )
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.body = body

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


class BadRequestError(APIStatusError):
    """400: the server's validation refused the request."""


class AuthenticationError(APIStatusError):
    """401: the key is missing, wrong or revoked, and its callable returned no other key."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this, or the organisation is suspended or at its limit."""


class NotFoundError(APIStatusError):
    """404: no such route. A stop of a session that is not running is answered with 200."""


class ConflictError(APIStatusError):
    """409: the request conflicts with the state of the server."""


class UnprocessableEntityError(APIStatusError):
    """422: well-formed, but not acceptable."""


class RateLimitError(APIStatusError):
    """429: too many requests, or too many sessions at once."""


class InternalServerError(APIStatusError):
    """5xx: every attempt of a stop or a look-up failed. After a start the outcome is unknown."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status: int) -> type[APIStatusError]:
    """The exception class for the status of a refusal."""
    fallback = InternalServerError if 500 <= status <= 599 else APIStatusError
    return _BY_STATUS.get(status, fallback)


class StartOutcomeUnknownError(EquosError):
    """The start was sent, but no usable answer came: a billed session may exist.

    Only the request's ``max_duration`` ends that session. Do not simply start again: two sessions
    may run then, and both are billed. The start is in ``client.unresolved`` until its outcome is
    known.
    """


class StartUnreadableError(StartOutcomeUnknownError):
    """The server accepted the start (2xx), but the body of its answer was unusable.

    If the session's id could be read, it is in ``session_id``, and that session was stopped.
    """
