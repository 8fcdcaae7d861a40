"""Prints what looking costs a server that breaks down: ``python -m tests.settling.load``.

The outage model of :mod:`tests.bench.outage`, in which each client also looks for the starts that
it lost, with the library's own schedule and way through a list. The worst list is assumed: all
processes share it, no filter makes it shorter, and it is as long as the history. Newest first.
Each outage has several runs, each with a seed of its own. The exit code is 1 where looks are, in
any of them, more than 5 % of what the server is sent without them.
"""

from __future__ import annotations

import argparse
import random
import sys
from bisect import insort
from collections.abc import Sequence
from functools import partial
from statistics import median

from attrs import define, field, frozen

from equos_async import RetryPolicy, Settle, Timeouts
from equos_async._api.effects import CREATE
from equos_async._retry.classify import Outcome, Verdict
from equos_async._retry.pages import ListMemory, Part, read, since
from equos_async._retry.search import LostAttempt, Search
from tests.bench.outage import (
    AFTER,
    CALLERS_PER_PROCESS,
    CAPACITY_PER_CALLER,
    OUTAGE_END,
    ROUND_TRIP,
    THINK,
    Call,
    Kind,
    OurClient,
    Process,
    Server,
    Signal,
    Site,
    World,
)

MOST = 0.05
"""Looks for each other request, at most."""


@define
class Books:
    """The counts of starts and of looks.

    Attributes:
        made: When each session was begun, oldest first.
        starts: Attempts of starts.
        looks: Parts of lists that were asked for.
        lost: Starts of which nobody knew.
    """

    made: list[float] = field(factory=list[float])
    starts: int = 0
    looks: int = 0
    lost: int = 0

    @property
    def share(self) -> float:
        """Looks for each attempt of a start."""
        return self.looks / self.starts


class LookingClient(OurClient):
    """One process, with its looker."""

    def __init__(self, site: Site, books: Books) -> None:
        super().__init__(site, effect=CREATE)
        self._site = site
        self._books = books
        self._search = Search(Settle().look_for)
        self._memory = ListMemory()
        self._pages = 0
        self._changed = Signal(site.world)
        site.world.spawn(self._look())

    def call(self, call: Call) -> Process[bool]:
        """Make one start, and search for it if its answer is lost."""
        done = yield from super().call(call)
        self._books.starts += call.attempts
        return done

    def _learn(self, outcome: Outcome, attempts: int, paid: float) -> Verdict:
        verdict = super()._learn(outcome, attempts, paid)
        now = self._site.world.now
        if outcome.status == 201 or (outcome.status is None and outcome.sent):
            insort(self._books.made, now)
        if verdict is Verdict.UNKNOWN:
            marker = str(self._books.lost)
            self._books.lost += 1
            took = ROUND_TRIP[1] if outcome.status else Timeouts().start_attempt
            sent_at = now - took
            self._search.add(LostAttempt(marker=marker, client=None, sent_at=sent_at, lost_at=now))
            self._changed.fire(value=True)
        return verdict

    def _look(self) -> Process[None]:
        world = self._site.world
        while world.now < OUTAGE_END + AFTER:
            at = self._search.next_at()
            self._changed = Signal(world)
            if at > world.now:
                if at < OUTAGE_END + 2 * AFTER:
                    world.at(at, partial(self._changed.fire, True))
                yield self._changed
                continue
            look = self._search.begin(world.now)
            self._pages = 0
            if (yield from self._read(look.since)):
                self._search.finish(look, world.now, pages=self._pages)
            else:
                self._search.fail(world.now, pages=self._pages, retry_after=None)

    def _read(self, sent_at: float) -> Process[bool]:
        reading = read(self._memory)
        span = next(reading)
        while True:
            if not (yield from self._ask()):
                return False
            now, made = self._site.world.now, self._books.made
            end = len(made) - span.skip
            found = made[max(0, end - span.take) : max(0, end)][::-1]
            try:
                span = reading.send(Part(len(found), len(made), found, since(now, now - sent_at)))
            except StopIteration:
                return True

    def _ask(self) -> Process[bool]:
        """Send for a part of the list, as often as one that only reads is tried."""
        site = self._site
        for number in range(RetryPolicy().read_attempts):
            self._pages += 1
            self._books.looks += 1
            outcome = yield from site.server.request(Timeouts().read_attempt)
            if outcome.status == 201:
                return True
            yield site.rng.random() * min(20.0, 0.5 * 2.0**number)
        return False


@frozen
class Row:
    """All runs of one kind of outage."""

    kind: Kind
    runs: tuple[Books, ...]

    @property
    def most(self) -> float:
        """Looks for each attempt of a start, in the worst of them."""
        return max(books.share for books in self.runs)

    def __str__(self) -> str:
        columns = (
            f"{median(one.starts for one in self.runs):.0f}",
            f"{median(one.lost for one in self.runs):.0f}",
            f"{median(one.looks for one in self.runs):.0f}",
            f"{median(one.share for one in self.runs):.1%}",
            f"{self.most:.1%}",
        )
        return f"| {self.kind.value} | {' | '.join(columns)} |"


def run(kind: Kind, *, callers: int, seed: int) -> Books:
    """One outage of one kind."""
    rng, world, books = random.Random(seed), World(), Books()
    server = Server(world, kind, callers * CAPACITY_PER_CALLER, rng)
    site = Site(world, server, rng)
    clients = [LookingClient(site, books) for _ in range(callers // CALLERS_PER_PROCESS)]

    def caller(client: LookingClient) -> Process[None]:
        yield rng.expovariate(1 / THINK)
        while world.now < OUTAGE_END + AFTER:
            yield from client.call(Call(began=world.now))
            yield rng.expovariate(1 / THINK)

    for number in range(callers):
        world.spawn(caller(clients[number % len(clients)]))
    world.run()
    return books


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    print("| outage | starts sent | lost | looks | looks for each start | in the worst run |")
    print("|---|---|---|---|---|---|")
    for kind in Kind:
        seeds = range(1, given.seeds + 1)
        row = Row(kind, tuple(run(kind, callers=given.callers, seed=seed) for seed in seeds))
        print(row, flush=True)
        rows.append(row)
    return 1 if any(row.most > MOST for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
