"""Faults of a server, as frozen values, one class for each kind.

``when="before"``: the fault comes before the server acts; except for :class:`Delay`, the request is
then not carried out. ``when="after"``: the request is carried out first, so a session is live
although its caller sees a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from attrs import Factory, frozen

When = Literal["before", "after"]


@frozen
class Status:
    """Answer with a status.

    Attributes:
        status: The HTTP status.
        message: The message in a NestJS error body.
        retry_after: The value of the Retry-After header: seconds, or any text.
        headers: Further headers.
        body: Your own body instead of the error body, for example HTML.
        when: ``"after"``: for example a proxy's 502 for a request that the server carried out.
    """

    status: int
    message: str = "fault"
    retry_after: float | str | None = None
    headers: Mapping[str, str] = Factory(dict[str, str])
    body: bytes | str | None = None
    when: When = "before"


@frozen
class Delay:
    """Wait, on the emulator's clock, before going on with the next fault or the answer.

    Attributes:
        seconds: How long.
        when: ``"before"``: the server is slow to act; ``"after"``: slow to answer. In both cases it
            acts, even if the caller has closed the connection.
    """

    seconds: float
    when: When = "before"


@frozen
class Hang:
    """Never answer; the connection stays open until the caller closes it."""

    when: When = "after"


@frozen
class Drop:
    """Close the connection without an answer."""

    when: When = "before"


@frozen
class Reset:
    """Reset the connection (TCP RST) without an answer."""

    when: When = "before"


@frozen
class Truncate:
    """Act, send the answer's head and the first bytes of its body, and close.

    Attributes:
        keep: How many bytes of the body are sent.
    """

    keep: int = 20
    when: ClassVar[When] = "after"


@frozen
class Garbage:
    """Act, and answer with bytes that are not HTTP.

    Attributes:
        data: The bytes.
    """

    data: bytes = b"\x00\xff not http\r\n\r\n"
    when: ClassVar[When] = "after"


@frozen
class Redirect:
    """Redirect, and do nothing else.

    Attributes:
        location: The new address.
        status: The HTTP status.
    """

    location: str
    status: int = 307
    when: ClassVar[When] = "before"


@frozen
class Twice:
    """Carry a start out twice, like a proxy that repeats a POST; only one answer is sent."""

    when: ClassVar[When] = "before"


@frozen
class Lag:
    """Hide what a start made from look-ups for a while: it is on no list, and null by id.

    Attributes:
        seconds: How long, on the emulator's clock.
    """

    seconds: float
    when: ClassVar[When] = "before"


@frozen
class RefuseVariables:
    """Refuse a start that has template variables with a 400 that names them.

    Attributes:
        prefix: Only variables whose names begin with this.
    """

    prefix: str = ""
    when: ClassVar[When] = "before"


@frozen
class ForgetVariables:
    """Do not keep a start's template variables, so that no answer shows them.

    Attributes:
        prefix: Only variables whose names begin with this.
    """

    prefix: str = ""
    when: ClassVar[When] = "before"


Twist = Twice | Lag | RefuseVariables | ForgetVariables
"""Faults that alter a start; they combine with others: ``add(Lag(5), Drop("after"))``."""

Mishap = Status | Delay | Hang | Drop | Reset | Truncate | Garbage | Redirect
"""Faults of a request's transport or answer, for any operation."""

Fault = Mishap | Twist
