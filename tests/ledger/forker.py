"""A program that forks while it has a ledger in a file and another one in memory."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings

from equos_async import SQLiteLedger
from equos_async.testing.ledger_contract import ids, place, row

IN_FILE = SQLiteLedger(sys.argv[1])
IN_MEMORY = SQLiteLedger(":memory:")


async def told(who: str) -> str:
    """The rows of both ledgers."""
    parts = [" ".join(sorted(await ids(ledger))) for ledger in (IN_FILE, IN_MEMORY)]
    return f"{who}: {parts[0]} | {parts[1]}"


async def before() -> None:
    """Use and close one ledger, and leave two in use."""
    async with SQLiteLedger(sys.argv[1]) as closed:
        await closed.rows()
    await place(IN_FILE, row("file"))
    await place(IN_MEMORY, row("memory"))


async def in_child() -> None:
    """Be another worker."""
    await place(IN_FILE, row("file", "worker-2", key="other"))
    await place(IN_MEMORY, row("memory", "worker-2"))
    print(await told("child"), flush=True)
    await IN_FILE.aclose()
    await IN_MEMORY.aclose()


async def in_parent() -> None:
    """Go on as before."""
    await place(IN_FILE, row("after"))
    print(await told("parent"), flush=True)
    await IN_FILE.aclose()
    await IN_MEMORY.aclose()


if __name__ == "__main__":
    # What a fork leaves of the parent's threads is the very matter here.
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.run(before())
    if child := os.fork():
        os.waitpid(child, 0)
        asyncio.run(in_parent())
    else:
        asyncio.run(in_child())
