"""Both engines keep the contract that any ledger must keep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from equos_async import RedisLedger, SQLiteLedger
from equos_async.testing.grouped_ledger_contract import GroupedLedgerContract
from equos_async.testing.keyed_ledger_contract import KeyedLedgerContract
from equos_async.testing.ledger_contract import BulkLedgerContract, LedgerContract, OpenLedger
from equos_async.testing.named_ledger_contract import NamedLedgerContract
from equos_async.testing.settling_contract import SettlingLedgerContract
from equos_async.testing.turns_contract import TurnsContract
from tests.ledger.conftest import RedisServer


class AllContracts(
    LedgerContract,
    BulkLedgerContract,
    KeyedLedgerContract,
    NamedLedgerContract,
    SettlingLedgerContract,
    GroupedLedgerContract,
    TurnsContract,
):
    """Both engines have all methods that a fleet can use."""


class TestSQLite(AllContracts):
    """A file, opened once a worker."""

    @pytest.fixture
    async def open_ledger(self, tmp_path: Path) -> AsyncIterator[OpenLedger]:
        async with AsyncExitStack() as stack:

            def open_ledger() -> SQLiteLedger:
                ledger = SQLiteLedger(tmp_path / "ledger.db")
                stack.push_async_callback(ledger.aclose)
                return ledger

            yield open_ledger


class TestRedis(AllContracts):
    """A server, with a pool of connections a worker."""

    @pytest.fixture
    async def open_ledger(self, redis: RedisServer) -> AsyncIterator[OpenLedger]:
        async with AsyncExitStack() as stack:

            def open_ledger() -> RedisLedger:
                ledger = RedisLedger(redis.url)
                stack.push_async_callback(ledger.aclose)
                return ledger

            yield open_ledger
