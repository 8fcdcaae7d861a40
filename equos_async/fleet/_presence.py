"""Track the use of a session that ends if nobody uses it."""

from __future__ import annotations

from attrs import define

from equos_async import _validate


@define(eq=False)
class Presence:
    """The use of a session that ends if nobody uses it.

    Attributes:
        join_within: Seconds in which somebody must join; None: no limit.
        idle_after: Seconds without use after which it is stopped; None: no limit.
        has_joined: Whether somebody has used it.
        seen: The time of the last use, on the clock; before the first, when it became live.
        is_asked: Whether its timer has nothing to do now: the server is asked whether somebody has
            joined, or it is being stopped.
    """

    join_within: float | None
    idle_after: float | None
    has_joined: bool = False
    seen: float = 0.0
    is_asked: bool = False

    def touch(self, now: float) -> None:
        """Note that somebody uses it."""
        self.has_joined, self.seen = True, now

    def carried_on(self) -> Presence:
        """The presence of its replacement: whoever has joined this session has joined that one."""
        return Presence(None if self.has_joined else self.join_within, self.idle_after)


def presence_of(join_within: float | None, idle_after: float | None) -> Presence | None:
    """The presence that a start asks for, if it asks for any.

    Raises:
        ConfigurationError: One of them is not a number of seconds.
    """
    for name, seconds in (("join_within", join_within), ("idle_after", idle_after)):
        if seconds is not None:
            _validate.number(name, seconds)
    is_any = join_within is not None or idle_after is not None
    return Presence(join_within, idle_after) if is_any else None
