"""Follow a call beyond the result that its caller gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar


def _never() -> bool:
    return False


class Watch:
    """Follows one call to its end: the first one made in the context in which it is set.

    Args:
        key: The fleet's key of the session, for log records.
        settled: Called when the call is over and no session runs, if its caller had got an error
            that left this open, or did not wait. Also called when the client has stopped the
            session because it is closing.
        markers: The markers for its attempts, if they are also written elsewhere, as in a ledger.
        rests: Called when the call has failed and waits for its next attempt.

    Attributes:
        is_withdrawn: Whether the call was withdrawn before anything was sent.
        is_settled: Whether ``settled`` was called.
        is_called_off: Whether nothing more may be sent for it, although its caller waits.
        is_left: Whether the owner of the watch is about to stop its session.
        over: Called when the call is over, with whatever result.
        sent_at: When the last attempt of the call was sent, on the client's clock; None: not sent.
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
        self.is_left: bool = False
        self.over: Callable[[], object] = _never
        self.sent_at: float | None = None
        self.rests: Callable[[], object] = rests
        self._settled = settled
        self._is_unsent: Callable[[], bool] | None = None
        self._release: Callable[[], object] = _never

    @property
    def is_unsent(self) -> bool:
        """Whether the call is in progress, and the server has nothing to act on."""
        return self._is_unsent is not None and self._is_unsent()

    @property
    def is_under_way(self) -> bool:
        """Whether the call is not over: a search may go on after its caller has an error."""
        return self._is_unsent not in {None, _never}

    def take(self, is_unsent: Callable[[], bool]) -> bool:
        """Begin to follow a call; False if it follows one already."""
        if self._is_unsent is not None:
            return False
        self._is_unsent = is_unsent
        return True

    def hand_over(self, release: Callable[[], object]) -> None:
        """Let the client hold the session until a stop of it is launched."""
        self._release = release

    def release(self) -> None:
        """Note, once, that a stop of the session was launched, or that the session has ended."""
        release, self._release = self._release, _never
        release()

    def settle(self) -> None:
        """Note that the call and its session are over."""
        self.is_settled = True
        self._settled()

    def let_go(self) -> None:
        """Forget the call, because the two would form a reference cycle."""
        self._is_unsent = _never
        self.over()
        self.over = _never


WATCH: ContextVar[Watch | None] = ContextVar("WATCH", default=None)
"""The watch for the next call in this context."""
