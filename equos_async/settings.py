"""The settings of a client: times, attempts and limits, as data only."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from . import _validate


def _number(_: object, attribute: Attribute[Any], value: object) -> None:
    _validate.number(attribute.name, value)


def _number_or_zero(_: object, attribute: Attribute[Any], value: object) -> None:
    _validate.number(attribute.name, value, zero=True)


def _count(_: object, attribute: Attribute[Any], value: object) -> None:
    _validate.count(attribute.name, value)


@frozen(kw_only=True)
class Timeouts:
    """The time limits of attempts and calls, in seconds.

    Attributes:
        connect: One connection: name look-up, TCP and TLS handshakes.
        start_attempt: One attempt of a start. After it the caller gets ``StartOutcomeUnknownError``
            if the start was sent; the client then waits for a late answer until ``deadline``, to
            stop its session.
        stop_attempt: One attempt of a stop.
        read_attempt: One attempt of a call that only reads.
        deadline: A whole call, with all attempts and waiting.
    """

    connect: float = field(default=5.0, validator=_number)
    start_attempt: float = field(default=30.0, validator=_number)
    stop_attempt: float = field(default=10.0, validator=_number)
    read_attempt: float = field(default=10.0, validator=_number)
    deadline: float = field(default=60.0, validator=_number)


@frozen(kw_only=True)
class Limits:
    """How many requests may be on the wire at once, and how long idle connections are kept.

    Starts and stops have separate limits: with a shared one, stops would wait behind slow starts.

    Attributes:
        start_connections: Starts on the wire at once.
        stop_connections: Stops on the wire at once.
        read_connections: Calls that only read, on the wire at once.
        keepalive: Seconds that an idle connection is kept; 0: a new one for each request. Stay
            below the server's own limit (Node's default is 5 s): if the server closes a connection
            just when a start uses it, the outcome of that start is unknown.
    """

    start_connections: int = field(default=100, validator=_count)
    stop_connections: int = field(default=256, validator=_count)
    read_connections: int = field(default=8, validator=_count)
    keepalive: float = field(default=4.0, validator=_number_or_zero)


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how soon calls are tried again.

    Attributes:
        start_attempts: Attempts of a start, the first included.
        stop_attempts: Attempts of a stop, the first included.
        read_attempts: Attempts of a call that only reads, the first included.
        base: Seconds; the first retry waits a random share of it, each further one of twice as
            much.
        throttled_base: The same after 429 or 503.
        cap: Seconds; no wait is longer, unless the server asks for it.
        max_retry_after: Seconds; if the server asks for a longer wait, a start fails at once. No
            shared pause is longer.
        budget: Tokens of the retry budget, which all starts of a client share.
        budget_refill: Tokens that flow back each second.
        connection_cost: Tokens that a retry of a start costs after a failed connection.
        throttled_cost: Tokens that a retry of a start costs after 429 or 503.
        gate_width: Retries of stops in flight at once, to begin with.
        gate_max_width: The same, after successes.
        gate_delay: Seconds between retries of stops, after the first failed retry.
        gate_max_delay: The same, after many failed retries.
        slow_start: Starts in flight at once when a shared pause ends.
    """

    start_attempts: int = field(default=3, validator=_count)
    stop_attempts: int = field(default=8, validator=_count)
    read_attempts: int = field(default=3, validator=_count)
    base: float = field(default=0.5, validator=_number)
    throttled_base: float = field(default=1.0, validator=_number)
    cap: float = field(default=20.0, validator=_number)
    max_retry_after: float = field(default=30.0, validator=_number)
    budget: float = field(default=500.0, validator=_number_or_zero)
    budget_refill: float = field(default=5.0, validator=_number_or_zero)
    connection_cost: float = field(default=10.0, validator=_number_or_zero)
    throttled_cost: float = field(default=10.0, validator=_number_or_zero)
    gate_width: int = field(default=4, validator=_count)
    gate_max_width: int = field(default=8, validator=_count)
    gate_delay: float = field(default=0.25, validator=_number)
    gate_max_delay: float = field(default=5.0, validator=_number)
    slow_start: int = field(default=4, validator=_count)


@frozen(kw_only=True)
class Settle:
    """How long the client searches for the session of a start whose answer was lost.

    Attributes:
        patience: Seconds that the caller of the start waits for the search, at most until its
            deadline.
        look_for: Seconds that the search takes in total; it goes on after the caller has its error.
    """

    patience: float = field(default=5.0, validator=_number_or_zero)
    look_for: float = field(default=60.0, validator=_number)
