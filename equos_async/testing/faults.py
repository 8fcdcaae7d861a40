"""What a server can do wrong, as data: frozen values, one for each kind of fault.

``when`` tells on which side of the fault the server does what it was asked to do: with
``"before"`` the fault comes before the work, which for all but :class:`Delay` is then never done;
with ``"after"`` the work is done, and a started session is live, whatever its caller sees.
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
        message: The words of a NestJS error body.
        retry_after: The Retry-After header: seconds, or any text.
        headers: More headers.
        body: A body of your own instead of the error body, HTML say.
        when: ``"after"``: a proxy's 502 for a request that the server has carried out.
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
        when: ``"before"``: the server is slow to act; ``"after"``: to answer. Either way it acts,
            also where the caller has gone meanwhile.
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
    """As :class:`Drop`, with a TCP reset."""

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
        location: Where to.
        status: The HTTP status.
    """

    location: str
    status: int = 307
    when: ClassVar[When] = "before"


@frozen
class Twice:
    """A start is carried out twice, as by a proxy that sends a POST again; one answer comes."""

    when: ClassVar[When] = "before"


@frozen
class Lag:
    """What this start makes is not known to look-ups at first: it is on no list, and null by id.

    Attributes:
        seconds: How long, on the emulator's clock.
    """

    seconds: float
    when: ClassVar[When] = "before"


@frozen
class RefuseVariables:
    """A start that brings variables is refused with 400, which names them.

    Attributes:
        prefix: Only those whose names begin like this.
    """

    prefix: str = ""
    when: ClassVar[When] = "before"


@frozen
class ForgetVariables:
    """A start's variables are not kept, so that no answer shows them.

    Attributes:
        prefix: Only those whose names begin like this.
    """

    prefix: str = ""
    when: ClassVar[When] = "before"


Twist = Twice | Lag | RefuseVariables | ForgetVariables
"""What changes what a start does. It goes with any other fault: ``add(Lag(5), Drop("after"))``."""

Mishap = Status | Delay | Hang | Drop | Reset | Truncate | Garbage | Redirect
"""What happens to a request on its way, whatever it asks for."""

Fault = Mishap | Twist
