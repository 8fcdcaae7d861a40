"""Follow a call beyond the result that its caller gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar


def _never() -> bool:
    return False


class Watch:
    """Follows one call to its end: the first that is made in the context where it is set.

    Args:
        key: The fleet's key of the session, for log records.
        settled: Called when the call is over and nothing runs, although its caller was told that
            something may run, or did not wait. Also called when the closing client has stopped the
            session.
        markers: The markers of its attempts, if others know them.
        rests: Called when the call has failed and waits for its next attempt.

    Attributes:
        is_withdrawn: Whether the call was withdrawn before anything was sent.
        is_settled: Whether ``settled`` was called.
        is_called_off: Whether nothing more is to be sent for it, although its caller waits.
        over: Called when the call is over, whatever came of it.
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
        """Whether the call is not over: after its caller was told, it may still be looked for."""
        return self._is_unsent not in {None, _never}

    def take(self, is_unsent: Callable[[], bool]) -> bool:
        """Follow a call from now on; False if it follows one already."""
        if self._is_unsent is not None:
            return False
        self._is_unsent = is_unsent
        return True

    def hand_over(self, release: Callable[[], object]) -> None:
        """Its call is over, and the owner of the watch holds the session."""
        self._release = release

    def release(self) -> None:
        """The owner of the watch begins to stop its session, or knows that it has ended."""
        self._release()

    def settle(self) -> None:
        """The call and its session are over."""
        self.is_settled = True
        self._settled()

    def let_go(self) -> None:
        """Forget the call, because the two would form a reference cycle."""
        self._is_unsent = _never
        self.over()
        self.over = _never


WATCH: ContextVar[Watch | None] = ContextVar("WATCH", default=None)
"""The watch for the next call in this context."""
