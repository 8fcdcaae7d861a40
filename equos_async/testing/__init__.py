"""A local Equos to test against: real HTTP on a real socket, with faults and a billing meter."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import EmulatorClock
    from .emulator import EquosEmulator
    from .faults import (
        Delay,
        Drop,
        Fault,
        ForgetVariables,
        Garbage,
        Hang,
        Lag,
        Redirect,
        RefuseVariables,
        Reset,
        Status,
        Truncate,
        Twice,
    )
    from .plan import Faults, Planned
    from .records import EmulatedSession, EmulatorRequest
    from .scenarios import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Delay",
    "Drop",
    "EmulatedSession",
    "EmulatorClock",
    "EmulatorRequest",
    "EquosEmulator",
    "Fault",
    "Faults",
    "ForgetVariables",
    "Garbage",
    "Hang",
    "Lag",
    "Planned",
    "Redirect",
    "RefuseVariables",
    "Reset",
    "Scenario",
    "Status",
    "Truncate",
    "Twice",
]

_HOMES = ("faults", "records", "clock", "plan", "scenarios", "emulator")


def __getattr__(name: str) -> object:
    # Loaded on first use, because the pytest plugin is in this package: every test run of a project
    # that has this library installed imports it, even if no test needs an emulator.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (import_module(f"{__name__}.{home}") for home in _HOMES)
    return next(vars(module)[name] for module in modules if name in vars(module))
