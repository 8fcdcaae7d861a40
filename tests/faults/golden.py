"""Writes the events of each row of the fault matrix: ``python -m tests.faults.golden``.

For a change that is meant to be seen by those who listen; the difference is to be read. The
matrix compares them on both ways through aiohttp, whichever wrote them.
"""

from __future__ import annotations

import asyncio
import json
import logging

from equos_async import Event
from tests.faults import told
from tests.faults.test_matrix import ROWS, meet_with_a_start, meet_with_a_stop


async def main() -> None:
    """Meet each fault with a start and with a stop, and write their events."""
    logging.getLogger("equos_async").setLevel(logging.ERROR)  # what is told is in the file
    rows: dict[str, dict[str, list[str]]] = {}
    for name, behave, *expected in ROWS:
        rows[name] = {}
        for operation, meet, one in zip(
            ("start", "stop"), (meet_with_a_start, meet_with_a_stop), expected, strict=True
        ):
            if one.requests < 0:
                continue  # what is still read of a broken connection is up to the system
            events: list[Event] = []
            met = await meet(name, behave, events.append)
            rows[name][operation] = told.lines(events, met.server.endpoint)
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    told.PATH.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
