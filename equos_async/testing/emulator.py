"""The emulator: a local server with the Equos API, and what it knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self, get_args

from aiohttp import web

from .api import MAX_BODY, Api, nest_errors
from .background import BackgroundLoop
from .books import Books
from .clock import EmulatorClock
from .cors import Cors
from .journal import Journal
from .keys import Keys
from .leaks import report
from .listener import Listener
from .page import Page
from .plan import Faults
from .records import EmulatedSession, EmulatorRequest
from .scenarios import SCENARIOS, Scenario
from .service import PageOrder, Service
from .tokens import livekit


class EquosEmulator:
    """A local server with the Equos API: ``with EquosEmulator() as server: server.endpoint``.

    With ``async with`` it runs in the caller's event loop, with ``with`` in its own thread. In both
    cases its attributes and methods may be used from any thread.

    Args:
        host: The address to listen on.
        port: The port; 0: any free one.
        client_key: The only accepted client key; None: any.
        api_key: The only accepted server key; None: any.
        limit_concurrent: How many sessions and conversations may be live at once; None: any number.
        limit_duration: The largest duration that a start may ask for, in seconds; None: any.
        suspended: Whether the organisation is suspended.
        clock: The source of time; by default one that runs with real time.
        starting_for: Seconds that a session is ``starting`` before it is ``running``.
        page_order: The order of lists: ``newest`` or ``oldest`` first, or ``shuffled`` anew for
            each page. The vendor documents none.
        seed: The random seed for faults that hit a share of the requests, and for shuffled pages.
        on_request: Called with each request when it has ended, in the emulator's event loop.
        livekit_url: The URL of a LiveKit server that accepts the emulator's tokens; without one,
            the tokens are valid nowhere.
        livekit_key: The API key of that server.
        livekit_secret: The secret of that API key.
        cors_origins: The origins of web pages that may call the API from a browser
            (``http://localhost:5173``); ``"*"``: all. By default none, because any page in a
            browser on this machine could otherwise start sessions and read tokens.
        allow_live: Whether sessions and conversations may be live at the end of the block; if not,
            leaving it raises an ``AssertionError`` that names them.

    Raises:
        ValueError: An unknown ``page_order``, or some but not all of the LiveKit arguments.

    Attributes:
        faults: The faults to inject: ``faults.start.add(Status(429, retry_after=2), times=3)``.
        clock: The source of time.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        client_key: str | None = None,
        api_key: str | None = None,
        limit_concurrent: int | None = None,
        limit_duration: float | None = None,
        suspended: bool = False,
        clock: EmulatorClock | None = None,
        starting_for: float = 2.0,
        page_order: PageOrder = "newest",
        seed: int = 0,
        on_request: Callable[[EmulatorRequest], object] | None = None,
        livekit_url: str | None = None,
        livekit_key: str | None = None,
        livekit_secret: str | None = None,
        cors_origins: Collection[str] = (),
        allow_live: bool = True,
    ) -> None:
        self.host = host
        self.port: int = port
        self.clock: EmulatorClock = clock or EmulatorClock()
        self.faults: Faults = Faults(seed)
        self._books = Books(self.clock, starting_for)
        self._journal = Journal()
        self._keys = Keys(client_key, api_key)
        self._service = Service(
            self._books, self._keys, livekit(livekit_url, livekit_key, livekit_secret), seed
        )
        self.page_order = page_order
        self.limit_concurrent = limit_concurrent
        self.limit_duration = limit_duration
        self.suspended = suspended
        self._api = Api(
            service=self._service,
            journal=self._journal,
            faults=self.faults,
            clock=self.clock,
            on_request=on_request,
        )
        self._page = Page(
            books=self._books, journal=self._journal, faults=self.faults, clock=self.clock
        )
        self._middlewares = [*([Cors(cors_origins).guard] if cors_origins else ()), nest_errors]
        self._allow_live = allow_live
        self._listener = Listener()
        self._exits = ExitStack()

    # What can be seen.

    @property
    def endpoint(self) -> str:
        """The base URL, for clients on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def live(self) -> Mapping[str, EmulatedSession]:
        """The sessions and conversations that are live now, by id, oldest first."""
        return self._books.live()

    @property
    def live_sessions(self) -> Mapping[str, EmulatedSession]:
        """The live sessions, by id, oldest first."""
        return self._books.live("session")

    @property
    def live_conversations(self) -> Mapping[str, EmulatedSession]:
        """The live conversations, by id, oldest first."""
        return self._books.live("conversation")

    @property
    def ended_sessions(self) -> Mapping[str, EmulatedSession]:
        """The ended sessions (of the newest 10,000 that ended), by id, oldest first."""
        return self._books.ended("session")

    @property
    def ended_conversations(self) -> Mapping[str, EmulatedSession]:
        """The ended conversations (of the newest 10,000 that ended), by id, oldest first."""
        return self._books.ended("conversation")

    @property
    def ended_count(self) -> int:
        """How many sessions and conversations have ended in total."""
        return self._books.counts[1]

    @property
    def billed_seconds(self) -> float:
        """The seconds billed, which all sessions and conversations have run so far."""
        return self._books.billed_seconds

    @property
    def requests(self) -> tuple[EmulatorRequest, ...]:
        """The newest 10,000 requests, oldest first."""
        return self._journal.requests

    @property
    def request_count(self) -> int:
        """How many requests were read in total."""
        return self._journal.count

    # What can be steered.

    @property
    def suspended(self) -> bool:
        """Whether the organisation is suspended; if so, starts are refused."""
        return self._service.suspended

    @suspended.setter
    def suspended(self, suspended: bool) -> None:
        self._service.suspended = suspended

    @property
    def limit_concurrent(self) -> int | None:
        """How many sessions and conversations may be live at once, or None."""
        return self._service.limit_concurrent

    @limit_concurrent.setter
    def limit_concurrent(self, limit: int | None) -> None:
        self._service.limit_concurrent = limit

    @property
    def limit_duration(self) -> float | None:
        """The largest duration that a start may ask for, in seconds, or None."""
        return self._service.limit_duration

    @limit_duration.setter
    def limit_duration(self, limit: float | None) -> None:
        self._service.limit_duration = limit

    @property
    def client_key(self) -> str | None:
        """The only accepted client key, or None for any. A change takes effect at once."""
        return self._keys.client_key

    @client_key.setter
    def client_key(self, key: str | None) -> None:
        self._keys.client_key = key

    @property
    def api_key(self) -> str | None:
        """The only accepted server key, or None for any. A change takes effect at once."""
        return self._keys.api_key

    @api_key.setter
    def api_key(self, key: str | None) -> None:
        self._keys.api_key = key

    def revoke_key(self, key: str) -> None:
        """From now on answer 401 to this key, of either kind."""
        self._keys.revoked.add(key)

    @property
    def page_order(self) -> PageOrder:
        """The order of lists, ``newest`` or ``oldest`` first, or ``shuffled``."""
        return self._service.page_order

    @page_order.setter
    def page_order(self, order: PageOrder) -> None:
        if order not in get_args(PageOrder):
            raise ValueError(f"page_order must be one of {get_args(PageOrder)}, not {order!r}")
        self._service.page_order = order

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock: sessions reach ``running`` and their ``max_duration``."""
        self.clock.advance(seconds)

    def play(self, scenario: Scenario | str) -> None:
        """Add a scenario's faults, by value or by its name in ``SCENARIOS``."""
        (SCENARIOS[scenario] if isinstance(scenario, str) else scenario).play(self.faults)

    def end_session(self, session_id: str) -> bool:
        """End a session or conversation, as the server would; False if it is not live."""
        return self._books.close(session_id) is not None

    def join(self, session_id: str) -> bool:
        """Let a participant join a live session or conversation; False if it is not live.

        A conversation's ``joinedAt`` is the time of the first join.
        """
        return self._books.join(session_id)

    def say(self, session_id: str, content: str, *, author: str = "user") -> bool:
        """Let something be said in a live session or conversation; False if it is not live.

        It is in the ``transcript`` of later answers.

        Args:
            session_id: The id of the session or conversation.
            content: The text.
            author: ``user`` or ``character``.
        """
        return self._books.say(session_id, author, content)

    # Its life.

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: It cannot listen there.
        """
        app = web.Application(client_max_size=MAX_BODY, middlewares=self._middlewares)
        self._page.mount(app.router)
        self._api.mount(app.router)
        self.port = await self._listener.start(app, self.host, self.port)

    async def stop(self) -> None:
        """Close all connections and stop listening; what it knows stays readable."""
        self._api.abandon()
        await self._listener.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
        self._refuse_leaks(exc)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            loop = BackgroundLoop()
            stack.callback(loop.close)
            loop.run(self.start())
            stack.callback(lambda: loop.run(self.stop()))
            self._exits = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()
        self._refuse_leaks(exc)

    def _refuse_leaks(self, exc: BaseException | None) -> None:
        """Raise if something is live that may not be, unless another error is on its way."""
        if exc is None and not self._allow_live and self.live:
            raise AssertionError(report(self.live.values(), self.requests))
