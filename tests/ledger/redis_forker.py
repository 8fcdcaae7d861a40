"""A program that forks while it has open connections to Redis."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings

from equos_async import RedisLedger
from equos_async.testing.ledger_contract import ids, live, place, row

LEDGER = RedisLedger(sys.argv[1])


async def before() -> None:
    """Use it, and leave it open."""
    await live(LEDGER, row("a"), "s1")


async def in_child() -> None:
    """Be another worker."""
    async with LEDGER:
        await place(LEDGER, row("b", "worker-2"))


async def in_parent() -> None:
    """Go on over the connections of before."""
    async with LEDGER:
        print(" ".join(sorted(await ids(LEDGER))), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # that there may be threads
    with asyncio.Runner() as runner:
        runner.run(before())
        if child := os.fork():
            os.waitpid(child, 0)
            runner.run(in_parent())
        else:
            asyncio.run(in_child())
            os._exit(0)  # the runner is the parent's
