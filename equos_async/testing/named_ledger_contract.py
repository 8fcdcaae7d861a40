"""The tests for a ledger with names of workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from equos_async.ledger.protocol import NamedLedger, Namesake

from .ledger_contract import HERE, LEASE, SHORT, ids, live, place, row

NAME = "bot"


async def enlist(
    ledger: NamedLedger, worker: str, *, lease: float = LEASE, instead_of: str | None = None
) -> Namesake | None:
    """Take the name for a worker."""
    return await ledger.enlist(
        worker, name=NAME, process=f"process of {worker}", lease=lease, instead_of=instead_of
    )


@pytest.mark.asyncio
class NamedLedgerContract:
    """The tests for an engine that is also a :class:`NamedLedger`, with the same fixture."""

    async def test_a_name_has_one_worker(self, open_ledger: Callable[[], NamedLedger]) -> None:
        """Other workers learn the holder of a name, and see its heartbeats."""
        ledger = open_ledger()
        assert isinstance(ledger, NamedLedger)
        for _ in range(2):
            assert await enlist(ledger, "worker-1") is None
        held = await enlist(open_ledger(), "worker-2")
        assert held is not None
        assert (held.worker, held.process) == ("worker-1", "process of worker-1")
        await asyncio.sleep(0.01)
        still = await enlist(ledger, "worker-2")
        assert still == held, "asking for a name is no heartbeat of its holder"
        await ledger.renew("worker-1", lease=LEASE)
        moved = await enlist(ledger, "worker-2")
        assert moved is not None
        assert moved.until > held.until
        assert await ledger.enlist("worker-2", name="other", process="", lease=LEASE) is None

    async def test_a_worker_that_leaves_frees_its_name(
        self, open_ledger: Callable[[], NamedLedger]
    ) -> None:
        """A name is free at once, however long the engine has been reachable."""
        ledger = open_ledger()
        await enlist(ledger, "worker-1")
        await ledger.renew("worker-2", lease=0)
        assert await enlist(ledger, "worker-3") is not None, "another one has left"
        await ledger.renew("worker-1", lease=0)
        assert await enlist(ledger, "worker-2") is None

    async def test_a_stalled_worker_loses_its_name(
        self, open_ledger: Callable[[], NamedLedger]
    ) -> None:
        """A stalled worker keeps its name until the engine has been reachable for a lease."""
        ledger = open_ledger()
        await enlist(ledger, "worker-1", lease=SHORT)
        await asyncio.sleep(SHORT * 2)  # no heartbeat of any worker
        asked = 0
        async with asyncio.timeout(60):
            while await enlist(ledger, "worker-2", lease=SHORT) is not None:
                asked += 1
                await asyncio.sleep(SHORT / 8)
        assert asked
        held = await enlist(ledger, "worker-1")
        assert held is not None
        assert held.worker == "worker-2"

    async def test_a_name_is_free_when_all_rows_are_claimed(
        self, open_ledger: Callable[[], NamedLedger]
    ) -> None:
        """A name is free when all rows of its worker are claimed."""
        ledger = open_ledger()
        await enlist(ledger, "worker-1", lease=SHORT)
        await asyncio.sleep(SHORT * 2)
        assert await ledger.claim("worker-3", endpoint=HERE, lease=LEASE, at_once=True) == []
        assert await enlist(ledger, "worker-2") is None

    async def test_a_dead_worker_loses_its_name_and_rows(
        self, open_ledger: Callable[[], NamedLedger]
    ) -> None:
        """A dead worker loses its name, and its rows are claimed at once; no others are."""
        ledger = open_ledger()
        await enlist(ledger, "worker-1")
        session = await live(ledger, row("a"), "s1")
        await place(ledger, row("b"))
        assert not await place(ledger, row("c"), limit=1)
        await live(ledger, row("d", "worker-3"), "s3")
        await ledger.renew("worker-3", lease=0)
        held = await enlist(ledger, "worker-2", instead_of="worker-3")
        assert held is not None, "a dead worker that does not have the name changes nothing"
        assert await ledger.claim("worker-2", endpoint=HERE, lease=LEASE, of="worker-1") == []
        assert await enlist(ledger, "worker-2", instead_of="worker-1") is None
        claimed = await ledger.claim("worker-2", endpoint=HERE, lease=LEASE, of="worker-1")
        assert {(one.id, one.owner, one.session_id) for one in claimed} == {
            ("worker-1/a", "worker-1", "s1"),
            ("worker-1/b", "worker-1", None),
        }
        assert await ledger.claim("worker-2", endpoint=HERE, lease=LEASE, of="worker-1") == []
        assert (await ledger.renew("worker-2", lease=LEASE)) == {"worker-1/a": "s1"}
        assert await ledger.record(session, seconds=600) == "worker-2"
        assert await ids(ledger) == ["worker-1/a", "worker-1/b", "worker-3/d"]
        assert await ledger.renew("worker-3", lease=LEASE) == {"worker-3/d": "s3"}

    async def test_a_dead_worker_has_one_successor(
        self, open_ledger: Callable[[], NamedLedger]
    ) -> None:
        """If two workers know of the death, the second one finds the first one."""
        ledger = open_ledger()
        await enlist(ledger, "worker-1")
        assert await enlist(ledger, "worker-2", instead_of="worker-1") is None
        held = await enlist(ledger, "worker-3", instead_of="worker-1")
        assert held is not None
        assert held.worker == "worker-2"
