"""Workers in processes of their own, killed, paused and cut off; the emulator is the judge.

``python -m tests.ledger.chaos`` runs the long sweep: ten workers with fifty sessions each, and
their ledger in a file, in one Redis behind a network, behind Sentinels, and in a cluster. Each is
harmed in each way that there is, in an order by chance.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Self

from attrs import define, field

from equos_async import LedgerError, LedgerRow
from equos_async.testing import EmulatorRequest, EquosEmulator
from tests.ledger.sites import SITES, Site, ledger_at
from tests.ledger.worker import LOST, TOLD

PROMISED = 2.0
"""Seconds after its worker's lease in which an orphan is stopped."""

FAIL_OVER = 5.0
"""Seconds in which another server must have taken over."""


@define
class Worker:
    """One process."""

    name: str
    process: asyncio.subprocess.Process
    said: list[str] = field(factory=list[str])

    async def listen(self) -> None:
        """Keep what it says."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(line.decode().rstrip())

    def send(self, how: signal.Signals) -> None:
        """Signal it."""
        self.process.send_signal(how)


class Chaos:
    """Some workers of one ledger, and what is done to them.

    Attributes:
        workers: Those that live.
        dead: The names of those that were killed.
        refused: Starts that the emulator refused because there were too many sessions.
        slack: Seconds that an orphan may outlive its worker's lease; a busy machine may stand
            still for longer than what is promised.
    """

    def __init__(
        self,
        *,
        where: str,
        sessions: int,
        limit: int,
        lease: float,
        hold: float,
        seed: int,
        slack: float = 30.0,
    ) -> None:
        self.where = where
        self.sessions = sessions
        self.limit = limit
        self.lease = lease
        self.hold = hold
        self.slack = slack
        self.chance = random.Random(seed)
        self.workers: list[Worker] = []
        self.dead: set[str] = set()
        self.refused = 0
        self._paused: set[str] = set()
        self._numbers = count(1)
        self._listening: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.emulator = await self._stack.enter_async_context(
            EquosEmulator(limit_concurrent=self.limit, on_request=self._judge)
        )
        self.ledger = ledger_at(self.where)
        self._stack.push_async_callback(self.ledger.aclose)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.send(signal.SIGKILL)
                await worker.process.wait()
        await asyncio.gather(*self._listening)
        await self._stack.aclose()

    def _judge(self, request: EmulatorRequest) -> None:
        # The emulator refuses what is above its limit: no worker may ever have asked for that.
        self.refused += request.operation == "start" and request.status == 403

    async def spawn(self, count: int) -> None:
        """Start workers, and wait until they begin."""
        for _ in range(count):
            name = f"w{next(self._numbers)}"
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.ledger.worker", "--name", name),
                *("--endpoint", self.emulator.endpoint, "--ledger", self.where),
                *("--sessions", str(self.sessions), "--limit", str(self.limit)),
                *("--lease", str(self.lease), "--hold", str(self.hold)),
                stdout=asyncio.subprocess.PIPE,
            )
            worker = Worker(name, process)
            self.workers.append(worker)
            self._listening.append(asyncio.create_task(worker.listen()))
        await self.until(
            lambda: all("ready" in one.said for one in self.workers), 180, "workers that begin"
        )

    async def until(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for something, for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - other processes have no event here
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}") from None

    async def busy(self, count: int) -> None:
        """Wait until so many sessions are live."""
        await self.until(lambda: len(self.emulator.live) >= count, 180, f"{count} live sessions")

    def kill(self) -> Worker:
        """Kill a worker, at whatever it is."""
        worker = self.workers.pop(self.chance.randrange(len(self.workers)))
        worker.send(signal.SIGKILL)
        self.dead.add(worker.name)
        return worker

    async def pause(self, seconds: float) -> Worker:
        """Let a worker stand still, and go on."""
        worker = self.chance.choice(self.workers)
        self._paused.add(worker.name)
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        worker.send(signal.SIGCONT)
        return worker

    async def rows(self) -> list[LedgerRow]:
        """What the ledger knows, as soon as it answers."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return list(await self.ledger.rows())
                except LedgerError:
                    await asyncio.sleep(0.1)

    async def orphans(self) -> set[str]:
        """Live sessions of dead workers, but for starts that the ledger knows it cannot know."""
        live = {one.name for one in self.emulator.live.values()}
        left = {name for name in live if name.split("/")[0] in self.dead}
        if not left:
            return left
        return left - {row.key for row in await self.rows() if row.session_id is None}

    async def orphans_gone(self, seconds: float) -> float:
        """Every orphan is stopped within a time and some slack; how much of that was needed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while left := await self.orphans():
            if loop.time() > until + self.slack:
                held = {row.key: row for row in await self.rows() if row.key in left}
                late = f"not stopped {self.slack:g} s after {seconds:g}"
                raise AssertionError(f"{late}: {left}, {held}")
            await asyncio.sleep(0.02)
        return loop.time() - until

    async def at_work(self) -> None:
        """Each worker begins sessions from now on: its ledger works again."""
        now, names = time.time(), {worker.name for worker in self.workers}
        async with asyncio.timeout(60):
            while names:
                names -= {row.client for row in await self.rows() if row.started >= now}
                await asyncio.sleep(0.02)

    def check_the_living(self) -> None:
        """No worker has lost a session that was never paused."""
        for worker in self.workers:
            lost = [line for line in worker.said if line.startswith(LOST)]
            assert not lost or worker.name in self._paused, f"{worker.name} lost {lost[:5]}"

    async def end(self) -> None:
        """End all workers as an operator does."""
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        for worker in self.workers:
            try:
                code = await asyncio.wait_for(worker.process.wait(), 60)
            except TimeoutError:
                worker.send(signal.SIGUSR1)
                with suppress(AssertionError):  # it may not even be able to tell
                    await self.until(partial(worker.said.count, TOLD), 5, "its tasks")
                told = "\n".join(worker.said[-100:])
                raise AssertionError(f"{worker.name} does not end: {told}") from None
            assert code == 0, f"{worker.name} ended with {code}: {worker.said[-5:]}"

    async def leave(self) -> None:
        """End all workers; only starts of unknown outcome may be left."""
        await self.end()
        rows = await self.rows()
        unknown = {row.key for row in rows if row.session_id is None}
        live = {one.name for one in self.emulator.live.values()}
        assert live <= unknown, f"live, and in nobody's hands: {sorted(live - unknown)}"
        held = [row for row in rows if row.session_id is not None]
        assert held == [], f"in the ledger, but over: {held}"
        assert self.refused == 0, f"the limit of {self.limit} was exceeded {self.refused} times"


async def befall(chaos: Chaos, site: Site, what: str) -> None:
    """Kill a worker before and another one while something befalls their ledger.

    If it loses rows, those of dead workers are lost for good: then both are killed when the living
    have written theirs again.
    """
    lease, harm = chaos.lease, site.harms[what]
    if what in site.losses:
        await harm(lease)
        await chaos.at_work()
        chaos.kill()
    else:
        chaos.kill()
        harming = asyncio.ensure_future(harm(lease))
        await asyncio.sleep(chaos.chance.uniform(0, lease))
        chaos.kill()
        await harming
    # A fail-over may take that long; then everybody may be late, so nobody is for a lease.
    await chaos.orphans_gone(2 * lease + FAIL_OVER)
    await chaos.at_work()
    chaos.check_the_living()


async def be_calm(chaos: Chaos) -> float:
    """Kill a worker and pause another one; how long the last orphan outlived its lease."""
    await chaos.spawn(2)
    await asyncio.sleep(chaos.lease)
    chaos.kill()
    late = await chaos.orphans_gone(chaos.lease)
    await chaos.spawn(1)
    await chaos.pause(chaos.lease * 1.5)
    await chaos.busy(chaos.limit // 2)
    chaos.check_the_living()
    return late


async def sweep(
    site: Site, *, workers: int, sessions: int, rounds: int, seed: int, lease: float, hold: float
) -> str:
    """Do all of it to workers of one ledger, again and again; a row of a table."""
    limit = workers * sessions * 3 // 4
    async with Chaos(
        where=site.where,
        sessions=sessions,
        limit=limit,
        lease=lease,
        hold=hold,
        seed=seed,
        slack=PROMISED,
    ) as chaos:
        await chaos.spawn(workers)
        await chaos.busy(limit // 2)
        ways = sorted(site.harms)
        chaos.chance.shuffle(ways)
        late = list[float]()
        for what in islice(cycle(ways), rounds or len(ways)):
            await befall(chaos, site, what)
            late.append(await be_calm(chaos))
        await chaos.leave()
        harms = Counter(islice(cycle(ways), rounds or len(ways)))
        cells = (
            ", ".join(f"{what} {count}x" for what, count in sorted(harms.items())),
            f"{len(chaos.dead)}",
            f"{chaos.emulator.ended_count:,}",
            "0",  # or it would have failed
            f"{max(late):+.1f} s",
            f"{len(chaos.emulator.live)}",
        )
        return " | ".join(cells)


HEAD = """\
| ledger | its failures | killed | sessions | left | last orphan, after its lease | unknown |
|---|---|---:|---:|---:|---:|---:|"""


async def main() -> None:
    """The long sweep, as a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument(
        "--rounds", type=int, default=0, help="harms of each; 0: all that there are"
    )
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--hold", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sites", nargs="+", default=list(SITES))
    args = parser.parse_args()
    print(HEAD, flush=True)
    for name in args.sites:
        with tempfile.TemporaryDirectory() as folder:
            async with SITES[name](Path(folder)) as site:
                told = await sweep(
                    site,
                    workers=args.workers,
                    sessions=args.sessions,
                    rounds=args.rounds,
                    seed=args.seed,
                    lease=args.lease,
                    hold=args.hold,
                )
                print(f"| {name} | {told} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
