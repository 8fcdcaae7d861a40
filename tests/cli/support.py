"""A start on the command line, and how the tests run a command."""

from __future__ import annotations

import asyncio

from equos_async.cli import main

START = ["start", "--avatar=av_1", "--agent=ag_1", "--identity=user-7", "--max-duration=60"]
JSON = (*START, "--json")


async def command(*argv: str) -> int:
    """Run a command in a thread, because it has an event loop of its own."""
    return await asyncio.to_thread(main, argv)
