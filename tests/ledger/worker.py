"""A worker as users write it, in a process of its own, for others to kill."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

from equos_async import (
    CreateEquosConversationRequest,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    FleetEvent,
    SessionFleet,
)
from tests.ledger.sites import ledger_at

ADA = EquosParticipantIdentity(identity="user-7", name="Ada")

AnyRequest = CreateSessionPassRequest | CreateEquosConversationRequest
REQUESTS: tuple[Callable[[dict[str, Any], float], AnyRequest], ...] = (
    lambda facts, seconds: CreateSessionPassRequest(
        avatar="av_1", agent="ag_1", consumer_identity=ADA, max_duration=seconds, **facts
    ),
    lambda facts, seconds: CreateEquosConversationRequest(
        character_id="ch_1", consumer=ADA, max_seconds=seconds, **facts
    ),
)


async def talk(fleet: SessionFleet, request: AnyRequest, hold: float) -> None:
    """Hold one session after another."""
    chance = random.Random(request.name)
    while True:
        try:
            async with await fleet.start(request, key=request.name):
                await asyncio.sleep(chance.uniform(0.2, hold))
        except EquosError as error:
            print(f"{request.name}: {type(error).__name__}: {error}", flush=True)
            await asyncio.sleep(0.1)


LOST = "lost: "
"""What a line begins with that tells of a session that another worker has claimed."""


def tell_lost(event: FleetEvent) -> None:
    """Say that another worker took a session of this one."""
    if event.kind == "lost":
        print(f"{LOST}{event.key}: {event.reason}", flush=True)


TOLD = "that is all"
"""The last line of what a process waits for."""


def tell_tasks(*_: object) -> None:
    """Say what this process waits for."""
    for task in asyncio.all_tasks():
        print(f"{task} cancelled {task.cancelling()} times", flush=True)
        task.print_stack(file=sys.stdout)
    print(TOLD, flush=True)


async def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    parser.add_argument("--worker")
    parser.add_argument("--endpoint")
    parser.add_argument("--ledger")
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--lease", type=float)
    parser.add_argument("--hold", type=float)
    args = parser.parse_args()
    async with (
        ledger_at(args.ledger) as ledger,
        EquosClient("any-key", api_key="any", endpoint=args.endpoint, settle=None) as client,
        SessionFleet(
            client,
            max_live=args.limit,
            ledger=ledger,
            worker=args.worker,
            lease=args.lease,
            on_event=tell_lost,
        ) as fleet,
        asyncio.TaskGroup() as group,
    ):
        fleet.stop_on_signals()
        signal.signal(signal.SIGUSR1, tell_tasks)
        print("ready", flush=True)
        for n in range(args.sessions):
            facts: dict[str, Any] = {"name": f"{args.name}/{n}", "client": args.name}
            request = REQUESTS[n % 2](facts, args.hold + 30)
            group.create_task(talk(fleet, request, args.hold))


if __name__ == "__main__":
    asyncio.run(main())
