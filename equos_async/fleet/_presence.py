"""Whether anybody uses a session that ends where nobody does."""

from __future__ import annotations

from attrs import define

from equos_async import _validate


@define(eq=False)
class Presence:
    """Whether anybody uses a session that ends where nobody does.

    Attributes:
        join_within: Seconds in which somebody must join; None: it does not matter.
        idle_after: Seconds without use after which it is ended; None: it is not.
        has_joined: Whether anybody has used it.
        seen: When that was the last time, on the clock; before that, when it became live.
        is_asked: Whether nothing is to be done about it: the server is asked whether somebody has
            joined, or it is being ended.
    """

    join_within: float | None
    idle_after: float | None
    has_joined: bool = False
    seen: float = 0.0
    is_asked: bool = False

    def touch(self, now: float) -> None:
        """Somebody uses it."""
        self.has_joined, self.seen = True, now

    def carried_on(self) -> Presence:
        """For what replaces the session: who has joined that one joins this one, too."""
        return Presence(None if self.has_joined else self.join_within, self.idle_after)


def presence_of(join_within: float | None, idle_after: float | None) -> Presence | None:
    """What a start asks for; None where it asks for nothing.

    Raises:
        ConfigurationError: One of them is no number of seconds.
    """
    for name, seconds in (("join_within", join_within), ("idle_after", idle_after)):
        if seconds is not None:
            _validate.number(name, seconds)
    is_any = join_within is not None or idle_after is not None
    return Presence(join_within, idle_after) if is_any else None
