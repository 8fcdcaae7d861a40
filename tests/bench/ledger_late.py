"""How long sessions of dead workers run on with a slow API, and how long a fail-over lasts.

``python -m tests.bench.ledger_late`` prints two Markdown tables: the sessions of a killed worker
with an API that is slow or refuses, and the time for which the steps of a ledger fail while Redis
Sentinels name another primary.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from equos_async import EquosClient, LedgerError, RedisLedger, SessionFleet
from equos_async.testing import Delay, EmulatorRequest, EquosEmulator, Fault, Status
from equos_async.testing.ledger_contract import row
from tests.bench.ledger_cost import REQUEST
from tests.ledger.conftest import RedisServer
from tests.ledger.servers import watched

LEASE = 3.0
APIS: dict[str, Sequence[Fault]] = {
    "at once": (),
    "after 0.5 s": (Delay(0.5),),
    "after 2 s": (Delay(2),),
    "first 429 with `Retry-After: 1`": (Status(429, retry_after=1),),
    "first 503": (Status(503),),
}
tell = partial(print, flush=True)


async def late(url: str, orphans: int, faults: Sequence[Fault]) -> tuple[float, float]:
    """Seconds after its lease until a dead worker's last stop is asked for, and has ended it."""
    asked: dict[str | None, float] = {}

    def hear(request: EmulatorRequest) -> None:
        if request.operation == "stop":
            asked.setdefault(request.session_id, request.at)

    async with (
        EquosEmulator(on_request=hear) as server,
        RedisLedger(url) as ledger,
        EquosClient("any", endpoint=server.endpoint) as client,
        SessionFleet(client, ledger=ledger, lease=LEASE),
    ):
        begun = await asyncio.gather(*(client.start_session(REQUEST) for _ in range(orphans)))
        await asyncio.sleep(LEASE)  # else nobody counts as dead yet
        if faults:
            seen: set[str | None] = set()

            def is_first(request: EmulatorRequest) -> bool:
                is_new = request.session_id not in seen
                seen.add(request.session_id)
                return is_new

            always = isinstance(faults[0], Delay)
            server.faults.stop.add(*faults, times=None, when=None if always else is_first)
        rows = [
            row(f"{n}", "dead", session_id=one.session.id, endpoint=server.endpoint)
            for n, one in enumerate(begun)
        ]
        await ledger.record_all("dead", [(one, 600) for one in rows], lease=LEASE)
        ends = server.clock.now() + LEASE
        while server.live:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        done = server.clock.now()
        while await ledger.rows():  # noqa: ASYNC110 - nor has the ledger
            await asyncio.sleep(0.01)
        return max(asked.values()) - ends, done - ends


async def failed_over(folder: Path, down_after: int, how: signal.Signals) -> tuple[float, float]:
    """Seconds for which the steps of a ledger fail when its primary is gone.

    The second number is how long a suspended primary acts as one when it continues.
    """
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs here
    with watched(folder) as servers:
        for one in servers.sentinels:
            one.ask("SENTINEL", "SET", "main", "down-after-milliseconds", str(down_after))
        async with RedisLedger.from_sentinel(servers.addresses, "main") as ledger:
            await ledger.renew("worker-1", lease=60)
            servers.primary.wait_for_replica()
            servers.primary.process.send_signal(how)
            began, has_failed, works = time.monotonic(), False, True
            while not (has_failed and works):
                try:
                    await ledger.renew("worker-1", lease=60)
                except LedgerError:
                    has_failed, works = True, False
                    await asyncio.sleep(0.05)
                else:
                    works = True
            took = time.monotonic() - began
        if how is not signal.SIGSTOP:
            return took, 0
        servers.primary.process.send_signal(signal.SIGCONT)
        began = time.monotonic()
        servers.primary.wait_for("role:slave", "INFO", "replication")
        return took, time.monotonic() - began


async def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orphans", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = RedisServer(folder)
        redis.start()
        redis.ask("CONFIG", "SET", "appendfsync", "everysec")
        tell(f"| a stop is answered | orphans | last one stopped | of them asked (load {load()}) |")
        tell("|---|---:|---:|---:|")
        try:
            for answer, faults in APIS.items():
                for orphans in args.orphans:
                    redis.ask("FLUSHALL")
                    asked, ended = await late(redis.url, orphans, faults)
                    tell(f"| {answer} | {orphans:,} | {ended:+.1f} s | {asked:+.1f} s |")
        finally:
            redis.stop(signal.SIGKILL)
        tell(
            "\n| `down-after-milliseconds` | the primary is killed | is suspended | acts as one |\n"
            "|---:|---:|---:|---:|"
        )
        for down_after in (500, 2000, 5000):
            cells: list[str] = []
            for how in (signal.SIGKILL, signal.SIGSTOP):
                folders = [folder / f"{down_after}-{how}-{n}" for n in range(args.runs)]
                took = [await failed_over(one, down_after, how) for one in folders]
                cells.append(" / ".join(f"{one:.1f}" for one, _ in sorted(took)) + " s")
            cells.append(" / ".join(f"{two:.1f}" for _, two in sorted(took)) + " s")
            tell(f"| {down_after} | {' | '.join(cells)} |")


def load() -> str:
    """The load of the machine."""
    return f"{os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    asyncio.run(main())
