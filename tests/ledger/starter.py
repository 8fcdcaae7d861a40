"""A worker whose start is never answered, in a process of its own, for others to kill."""

from __future__ import annotations

import asyncio
import sys

from equos_async import EquosClient, SessionFleet
from equos_async.cli.ledger import open_ledger
from tests.conftest import REQUEST


async def main(endpoint: str, where: str) -> None:
    """Start one session."""
    async with (
        open_ledger(where, "equos") as ledger,
        EquosClient("any-key", api_key="any", endpoint=endpoint) as client,
        SessionFleet(client, max_live=1, ledger=ledger, lease=1.0) as fleet,
    ):
        await fleet.start(REQUEST, key="lost")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
