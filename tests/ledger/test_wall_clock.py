"""The clock of an engine is set: no worker is stalled by that, and whoever is dead is noticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest
from attrs import frozen

from equos_async import RedisLedger, SessionFleet, SQLiteLedger
from equos_async.cli.ledger import open_ledger
from equos_async.testing.ledger_contract import HERE, live, place, row
from tests.fleet.support import REQUEST, Events, ScriptedClient
from tests.ledger.conftest import RedisServer

HOUR = 3600.0
LEASE = 15.0
LONGER = 60.0
"""The lease of another fleet, or of ``reap --wait 60``."""

# As if the clock were set ahead: all times that the engine has are earlier.
IN_SQLITE = """
UPDATE engine SET heard = heard - :seconds, since = since - :seconds;
UPDATE workers SET until = until - :seconds;
UPDATE memory SET counted = counted - :seconds WHERE counted > 0;
UPDATE rows SET started = started - :seconds, expires = expires - :seconds;
UPDATE claimed SET at = at - :seconds;
"""
IN_REDIS = """
local seconds = -tonumber(ARGV[1])
for _, name in ipairs({'heard', 'since', 'counted'}) do
  if redis.call('HEXISTS', '{equos}:engine', name) == 1 then
    redis.call('HINCRBYFLOAT', '{equos}:engine', name, seconds)
  end
end
for _, index in ipairs({'workers', 'unresolved', 'claimed_at'}) do
  for _, one in ipairs(redis.call('ZRANGE', '{equos}:' .. index, 0, -1)) do
    redis.call('ZINCRBY', '{equos}:' .. index, seconds, one)
  end
end
local rows = redis.call('HGETALL', '{equos}:rows')
for n = 1, #rows, 2 do
  local first, text = string.match(rows[n + 1], '^(%d+:[^{]*)(.*)$')
  local row = cjson.decode(text)
  row.started, row.expires = row.started + seconds, row.expires + seconds
  redis.call('HSET', '{equos}:rows', rows[n], first .. cjson.encode(row))
end
"""

Engine: TypeAlias = SQLiteLedger | RedisLedger


@frozen
class Site:
    """A ledger.

    Attributes:
        open: Another view of it.
        ahead: Sets its clock ahead by so many seconds, or back.
    """

    open: Callable[[], Engine]
    ahead: Callable[[float], object]


@pytest.fixture(params=["sqlite", "redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Each engine."""
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis")
        return Site(
            lambda: open_ledger(redis.url, "equos"),
            lambda seconds: redis.ask("EVAL", IN_REDIS, "0", f"{seconds}"),
        )
    path = tmp_path / "ledger.db"
    path.touch()

    def ahead(seconds: float) -> None:
        with closing(sqlite3.connect(path)) as db, db:
            for statement in IN_SQLITE.split(";")[:-1]:
                db.execute(statement, {"seconds": seconds})

    return Site(lambda: open_ledger(f"sqlite:{path}", "equos"), ahead)


async def claimed(ledger: Engine, worker: str, lease: float, *, at_once: bool = False) -> list[str]:
    """The ids of the rows that a worker claims."""
    rows = await ledger.claim(worker, endpoint=HERE, lease=lease, at_once=at_once)
    return [one.id for one in rows]


@pytest.mark.parametrize("seconds", [-HOUR, -3.0, 8.0, 12.0, 20.0, HOUR])
async def test_the_living_and_the_dead(site: Site, seconds: float) -> None:
    """However it is set, and whoever looks first: only the dead one's sessions are claimed."""
    async with site.open() as ledger:
        for one in (row("a", "living", session_id="s1"), row("b", "dead", session_id="s2")):
            await ledger.record(one, seconds=24 * HOUR)
        for _ in range(16):
            site.ahead(4)
            await ledger.renew("dead", lease=LEASE)
            await ledger.renew("living", lease=LEASE)
        site.ahead(4)
        site.ahead(seconds)
        for since in range(4 * round(LEASE)):  # a machine that stands still takes longer
            for worker, lease in (("reap", LONGER), ("colleague", LEASE)):
                if taken := await claimed(ledger, worker, lease):
                    assert taken == ["dead/b"]
                    return
            if since % 5 == 0:
                assert await ledger.renew("living", lease=LEASE) == {"living/a": "s1"}
            site.ahead(1)
    pytest.fail("the dead one's session was not claimed")


async def test_an_operator_who_knows_that_nobody_lives(site: Site) -> None:
    """After a long silence ``reap --wait 0`` waits for no lease."""
    async with site.open() as ledger:
        await live(ledger, row("b", "dead"), "s2")
        await ledger.renew("dead", lease=LEASE)
        site.ahead(LEASE)
        assert await claimed(ledger, "reap", LONGER, at_once=True) == ["dead/b"]


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
async def test_nobody_waits_for_longer(site: Site, seconds: float) -> None:
    """The time for which a new engine places nobody is not longer by what the clock was set."""
    async with site.open() as ledger:
        await live(ledger, row("a"), "s1")
        site.ahead(seconds)
        assert await place(ledger, row("b"), lease=LEASE)


async def test_sessions_that_should_have_ended(site: Site, scripted: ScriptedClient) -> None:
    """Their worker writes them again; nobody stops them, and their slots and keys are theirs."""
    events = Events()
    async with (
        site.open() as mine,
        site.open() as theirs,
        SessionFleet(scripted, ledger=mine, lease=2, on_event=events) as fleet,
        SessionFleet(scripted, ledger=theirs, lease=2) as other,
    ):
        await fleet.start(REQUEST, key="a")
        (before,) = await mine.rows()
        site.ahead(30 * HOUR)

        while [one.age < HOUR for one in await mine.rows()] != [True]:  # it has to be new
            assert len(fleet.live) == 1
        (after,) = await mine.rows()
        assert (after.session_id, after.owner) == (before.session_id, before.owner)
        assert before.remaining - 60 < after.remaining <= before.remaining
        assert list(fleet.live) == ["a"]
        assert other.stats().reaped == 0
        assert events.kinds == [("started", "a")]
