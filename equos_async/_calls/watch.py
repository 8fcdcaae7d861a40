"""What becomes of a call beyond what its caller is told, for one that cares for longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar


def _never() -> bool:
    return False


class Watch:
    """Sees one call to its end: the first that is made in a context where it is set.

    Args:
        key: Whose session it is about, for log records.
        settled: Called when the call is over, nothing is running that it should have ended or
            might have begun, and its caller was told otherwise, or did not wait; also when the
            client, which closes, has ended what the call began.
        markers: Those of its attempts, where they are known to others.
        rests: Called when the call was answered with a failure, and waits to be sent again.

    Attributes:
        is_withdrawn: Whether it was called off before anything was sent.
        is_settled: Whether ``settled`` was called.
        is_called_off: Whether nothing more is to be sent for it, although its caller waits.
        over: Called when the call is over, whatever came of it.
        sent_at: When the last attempt of its call was sent, on the client's clock; None: none was.
    """

    def __init__(
        self,
        key: object,
        settled: Callable[[], None],
        markers: Iterator[str] | None = None,
        *,
        rests: Callable[[], object] = _never,
    ) -> None:
        self.key = key
        self.markers = markers
        self.is_withdrawn: bool = False
        self.is_settled: bool = False
        self.is_called_off: bool = False
        self.over: Callable[[], object] = _never
        self.sent_at: float | None = None
        self.rests: Callable[[], object] = rests
        self._settled = settled
        self._is_unsent: Callable[[], bool] | None = None
        self._release: Callable[[], object] = _never

    @property
    def is_unsent(self) -> bool:
        """Whether the call is under way, and nothing was sent that may still be acted on."""
        return self._is_unsent is not None and self._is_unsent()

    @property
    def is_under_way(self) -> bool:
        """Whether the call is not over: after its caller was told, it may still be looked for."""
        return self._is_unsent not in {None, _never}

    def take(self, is_unsent: Callable[[], bool]) -> bool:
        """Be about a call from now on; false where it is about one already."""
        if self._is_unsent is not None:
            return False
        self._is_unsent = is_unsent
        return True

    def hand_over(self, release: Callable[[], object]) -> None:
        """Its call is over, and what that began is in the hands of whoever watches."""
        self._release = release

    def release(self) -> None:
        """Whoever watches sets out to end what it holds, or knows that it is over."""
        self._release()

    def settle(self) -> None:
        """The call is over, and so is what it was about."""
        self.is_settled = True
        self._settled()

    def let_go(self) -> None:
        """The call is over: a watch that held on to it would make a cycle of the two."""
        self._is_unsent = _never
        self.over()
        self.over = _never


WATCH: ContextVar[Watch | None] = ContextVar("WATCH", default=None)
"""What sees to the next call that is made in this context."""
