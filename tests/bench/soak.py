"""Long storms: lost answers, resets, refusals and cancelled callers, and what is left of them.

``nox -s soak`` runs it (``-- --minutes N``; ten by default) and writes its table into
``.docs/soak.md``. It fails if a session is left that nobody reported, or if one was ended under its
holder. Clients and server share a process: what counts is what is left, not how fast it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import logging
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import Factory, define, evolve

from equos_async import (
    CreateEquosConversationRequest,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    Event,
    SessionFleet,
    SQLiteLedger,
    Timeouts,
    Unresolved,
)
from equos_async.testing import Delay, Drop, EquosEmulator, Reset, Status
from equos_async.testing.faults import Fault
from tests.conftest import API_KEY, KEY, REQUEST
from tests.kinds import TALK

CALLERS = 200
CANCELLED = 0.3
"""The share of callers that are cancelled within a tenth of a second."""
TIMEOUTS = Timeouts(start_attempt=1, stop_attempt=1, deadline=8)
WEATHER: tuple[tuple[Fault, float], ...] = (
    (Drop("after"), 0.02),
    (Drop("before"), 0.03),
    (Reset("after"), 0.02),
    (Delay(0.2), 0.1),
    (Delay(1.5, when="after"), 0.01),
    (Status(429, retry_after=0), 0.03),
    (Status(500), 0.02),
    (Status(503), 0.02),
)
COLUMNS = (
    "storm",
    "calls",
    "cancelled",
    "requests",
    "begun",
    "reported",
    "unreported",
    "cut short",
)

Call = Callable[[str], Awaitable[None]]
AnyRequest = CreateSessionPassRequest | CreateEquosConversationRequest


@define
class Storm:
    """One storm, and what came of it.

    Attributes:
        name: What it is called in the table.
        minutes: How long it blows.
        chance: Where its callers' luck comes from.
        results: How many calls ended how.
        cut_short: Sessions that ended while their holders held them.
        unknown: The names of starts whose outcome was told to be unknown; the client itself keeps
            the newest thousand only.
    """

    name: str
    minutes: float
    chance: random.Random = Factory(lambda: random.Random(5))
    results: Counter[str] = Factory(Counter[str])
    cut_short: int = 0
    unknown: Counter[str] = Factory(Counter[str])

    def client(self, server: EquosEmulator, api_key: str | None = None) -> EquosClient:
        """A client that reports its unresolved calls to the storm."""

        def note(event: Event) -> None:
            self.unknown[event.name or ""] += event.kind == "start_unknown"

        return EquosClient(
            KEY,
            api_key=api_key,
            endpoint=server.endpoint,
            timeouts=TIMEOUTS,
            on_event=note,
        )

    async def blow(self, call: Call) -> None:
        """Let callers call until the time is over, some of whom are cancelled."""
        until = asyncio.get_running_loop().time() + 60 * self.minutes
        await asyncio.gather(*(self._caller(call, f"caller {i}", until) for i in range(CALLERS)))

    async def _caller(self, call: Call, name: str, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            task = asyncio.ensure_future(call(name))
            if self.chance.random() < CANCELLED:
                loop.call_later(self.chance.random() / 10, task.cancel)
            await asyncio.wait([task])
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, EquosError):
                raise error
            self.results["cancelled" if task.cancelled() else type(error).__name__] += 1

    async def hold(self, server: EquosEmulator, session_id: str) -> None:
        """Use a session for a moment, and see that it is there all the time."""
        await asyncio.sleep(self.chance.random() / 20)
        self.cut_short += session_id not in server.live

    def row(self, server: EquosEmulator, left: tuple[Unresolved, ...]) -> tuple[str, ...]:
        """Its row in the table."""
        by_id = {one.session_id for one in left}
        strays = Counter(one.name or "" for one in server.live.values() if one.id not in by_id)
        unreported = strays - self.unknown
        calls, begun = self.results.total(), server.ended_count + len(server.live)
        numbers = (calls, self.results["cancelled"], server.request_count, begun)
        told = (len(server.live) - unreported.total(), unreported.total(), self.cut_short)
        return (self.name, *(f"{number:,}" for number in numbers + told))


@asynccontextmanager
async def stormy() -> AsyncGenerator[EquosEmulator, None]:
    """A server on which much goes wrong."""
    async with EquosEmulator(seed=5, api_key=API_KEY) as server:
        for fault, share in WEATHER:
            for plan in (server.faults.start, server.faults.stop):
                plan.add(fault, times=None, share=share)
        yield server


async def alone(minutes: float) -> tuple[str, ...]:
    """Blocks of a client without the server key: what is lost is reported."""
    storm = Storm("a client with the client key only", minutes)
    async with stormy() as server:
        client = storm.client(server)

        async def call(name: str) -> None:
            async with client.session(evolve(REQUEST, name=name)) as started:
                await storm.hold(server, started.session.id)

        await storm.blow(call)
        return storm.row(server, await client.aclose(deadline=60))


async def settling(minutes: float) -> tuple[str, ...]:
    """Bare starts and stops of both kinds, with the server key: what is lost is found."""
    storm = Storm("a client with the server key, sessions and conversations", minutes)
    async with stormy() as server:
        client = storm.client(server, api_key=API_KEY)

        async def call(name: str) -> None:
            if storm.chance.random() < 0.5:
                async with client.session(evolve(REQUEST, name=name)) as started:
                    await storm.hold(server, started.session.id)
            else:
                async with client.conversation(evolve(TALK, name=name)) as talk:
                    await storm.hold(server, talk.conversation.id)

        await storm.blow(call)
        return storm.row(server, await client.aclose(deadline=60))


async def fleet(minutes: float) -> tuple[str, ...]:
    """A fleet with a ledger and the server key: a later start replaces an earlier one."""
    storm = Storm("a fleet with a ledger and the server key", minutes)
    with tempfile.TemporaryDirectory() as folder:
        async with stormy() as server, SQLiteLedger(Path(folder) / "ledger.db") as ledger:
            client = storm.client(server, api_key=API_KEY)
            async with SessionFleet(client, max_live=CALLERS, ledger=ledger) as sessions:

                async def call(name: str) -> None:
                    request: AnyRequest = TALK if storm.chance.random() < 0.5 else REQUEST
                    named = evolve(request, name=name)
                    async with await sessions.start(named, key=name, if_taken="replace") as live:
                        await storm.hold(server, live.session_id)

                await storm.blow(call)
            return storm.row(server, await client.aclose(deadline=60))


def page(rows: list[tuple[str, ...]], minutes: float) -> str:
    """The page with the table."""
    today = dt.datetime.now(dt.UTC).date()
    where = f"{platform.system()}, Python {platform.python_version()}, {today}"
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    share = sum(share for _, share in WEATHER)
    return f"""# Storms

`nox -s soak`: {where}. Three storms of {minutes / 3:.1f} minutes each, with {CALLERS} callers, of \
whom {CANCELLED:.0%} are cancelled at a random time. About {share:.0%} of all starts and stops \
meet a fault: connections closed or reset before or after the server acted, answers later than the \
attempt's time, 429, 500 and 503.

{table}

*Begun* counts the sessions that the server started. *Reported* counts those that still ran at the \
end and that the client had reported, by id or as a start of unknown outcome; *unreported* those \
that ran without a report, and *cut short* those that ended while their holder used them. The last \
two must be 0, or the command fails. With the server key nothing should be left.
"""


def main(arguments: list[str]) -> int:
    """Run the storms and write the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in total (default: 10)")
    parser.add_argument("--out", type=Path, help="the page to write")
    options = parser.parse_args(arguments)
    logging.getLogger("equos_async").setLevel(logging.CRITICAL)
    rows: list[tuple[str, ...]] = []
    for storm in (alone, settling, fleet):
        rows.append(asyncio.run(storm(options.minutes / 3)))
        print("  ".join(map(": ".join, zip(COLUMNS, rows[-1], strict=True))), flush=True)
    if options.out is not None:
        options.out.write_text(page(rows, options.minutes))
    return int(any(row[-2:] != ("0", "0") for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
