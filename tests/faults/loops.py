"""The event loops that a program may run on: what holds on one holds on the others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

import uvloop

from tests.clocks import PatientLoop

Loop = Callable[[], asyncio.AbstractEventLoop]


def eager() -> asyncio.AbstractEventLoop:
    """A loop in which tasks begin at once."""
    loop = PatientLoop()
    loop.set_task_factory(vars(asyncio)["eager_task_factory"])
    return loop


LOOPS: Final[dict[str, Loop]] = {
    "asyncio": PatientLoop,
    "uvloop": uvloop.new_event_loop,
}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = eager
