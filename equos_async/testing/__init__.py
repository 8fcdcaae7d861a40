"""A local Equos to test against: real HTTP on a real socket, with faults and a billing meter."""

from __future__ import annotations

from .emulator import EmulatedSession, EmulatorClock, EmulatorRequest, EquosEmulator
from .faults import (
    Delay,
    Drop,
    Fault,
    Faults,
    Garbage,
    Hang,
    Redirect,
    Reset,
    Status,
    Truncate,
)

__all__ = [
    "Delay",
    "Drop",
    "EmulatedSession",
    "EmulatorClock",
    "EmulatorRequest",
    "EquosEmulator",
    "Fault",
    "Faults",
    "Garbage",
    "Hang",
    "Redirect",
    "Reset",
    "Status",
    "Truncate",
]
