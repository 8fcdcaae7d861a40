"""What a client can be told: how long, how often and how many at once, as data only."""

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
    """How long things may take, in seconds.

    Attributes:
        connect: One connection: name look-up, TCP and TLS handshakes.
        start_attempt: One attempt of a start. A start that was sent is not cancelled then: its
            caller gets ``StartOutcomeUnknownError``, and a late answer is awaited in the
            background until ``deadline``, so that its session can be stopped.
        stop_attempt: One attempt of a stop.
        read_attempt: One attempt of a call that only reads.
        deadline: A whole call, with all its attempts and all waiting.
    """

    connect: float = field(default=5.0, validator=_number)
    start_attempt: float = field(default=30.0, validator=_number)
    stop_attempt: float = field(default=10.0, validator=_number)
    read_attempt: float = field(default=10.0, validator=_number)
    deadline: float = field(default=60.0, validator=_number)


@frozen(kw_only=True)
class Limits:
    """How many connections at once, and how long idle ones are kept.

    Starts and stops have limits of their own: in one shared pool slow starts make stops wait.

    Attributes:
        start_connections: Starts on the wire at once.
        stop_connections: Stops on the wire at once.
        read_connections: Calls that only read, on the wire at once.
        keepalive: Seconds that an idle connection is kept; 0 means a fresh one for each request.
            Node closes idle connections after 5 s by default, and a start that meets such a close
            cannot be proved unsent: stay below the server's limit.
    """

    start_connections: int = field(default=100, validator=_count)
    stop_connections: int = field(default=256, validator=_count)
    read_connections: int = field(default=8, validator=_count)
    keepalive: float = field(default=4.0, validator=_number_or_zero)


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how soon a call is tried again.

    Attributes:
        start_attempts: Attempts of a start, the first included.
        stop_attempts: Attempts of a stop, the first included.
        read_attempts: Attempts of a call that only reads, the first included.
        base: Seconds; the first retry waits a uniform share of it, each further one of double.
        throttled_base: The same after 429 or 503.
        cap: Seconds; no backoff is longer, unless the server asks for it.
        max_retry_after: Seconds; a start whose server asks for more fails at once, and no shared
            pause is longer.
        budget: Tokens for the retries of all starts of one client.
        budget_refill: Tokens that flow back each second.
        connection_cost: Tokens that a start's retry costs after a connection failed.
        throttled_cost: Tokens that it costs after the server refused.
        gate_width: Retries of stops in flight at once, to begin with.
        gate_max_width: The same, after successes.
        gate_delay: Seconds between retries of stops, after the first that failed.
        gate_max_delay: The same, after many that failed.
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
    """How long a start is looked for whose answer was lost.

    Attributes:
        patience: Seconds that its caller waits for it to be found, at most until its deadline.
        look_for: Seconds for which it is looked for in all, also behind its caller's back.
    """

    patience: float = field(default=5.0, validator=_number_or_zero)
    look_for: float = field(default=60.0, validator=_number)
