"""Faults as people type them: ``start:429,retry_after=2,times=3``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final, NamedTuple, cast

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
    When,
)
from .plan import ALL, BOTH, Faults, Planned
from .records import Operation

FAULT_FORM: Final = "OPERATION:KIND[+KIND...][,times=N][,share=0.1]"

FAULT_SYNTAX: Final = (
    f"{FAULT_FORM}. OPERATION: start, stop, both, read or all. KIND: a status such as 429 (also "
    "with ,retry_after=2), delay=SECONDS, drop=before|after, reset=before|after, "
    "hang=before|after, truncate=BYTES, redirect=URL, garbage or null; for starts also "
    "lag=SECONDS, twice, refuse-variables=PREFIX and forget-variables=PREFIX. Without times= it "
    "hits all requests. Can be repeated"
)


_OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {
    "start": ("start",),
    "stop": ("stop",),
    "both": BOTH,
    "read": ("read",),
    "all": ALL,
}

_OPTIONS: Final = "there are times, share and, for a status, retry_after"


class Spec(NamedTuple):
    """One fault as it was typed."""

    operation: str
    faults: tuple[Fault, ...]
    times: int | None
    share: float

    def add_to(self, faults: Faults) -> None:
        """Add it to an emulator's faults."""
        faults.append(Planned(_OPERATIONS[self.operation], self.faults, self.times, self.share))


def parse_fault(spec: str) -> Spec:
    """Parse a fault.

    Raises:
        argparse.ArgumentTypeError: The text is not of the documented form.
    """
    try:
        return _parse(spec)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{spec!r} is not {FAULT_FORM}: {error}") from None


def _parse(spec: str) -> Spec:
    operation, _, rest = spec.partition(":")
    kinds, *options = rest.split(",")
    values = dict(_pair(option) for option in options)
    times, share = values.pop("times", None), float(values.pop("share", "1"))
    if operation not in _OPERATIONS:
        raise ValueError(f"the operation must be one of {', '.join(_OPERATIONS)}")
    faults = tuple(_fault(*_pair(kind), values) for kind in kinds.split("+"))
    if values:
        raise ValueError(f"there is no option {', '.join(values)}: {_OPTIONS}")
    parsed = Spec(operation, faults, None if times is None else int(times), share)
    parsed.add_to(Faults())  # which knows what times and share may be
    return parsed


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def _fault(kind: str, value: str, options: dict[str, str]) -> Fault:
    if kind.isascii() and kind.isdecimal():
        return Status(_status(kind), retry_after=options.pop("retry_after", None))
    if kind not in _KINDS:
        raise ValueError(f"the kind must be a status or one of {', '.join(_KINDS)}")
    return _KINDS[kind](value)


def _status(text: str) -> int:
    status = int(text)
    if not 200 <= status <= 599:
        raise ValueError("a status must be from 200 to 599")
    return status


def _when(value: str) -> When:
    if value not in {"before", "after"}:
        raise ValueError("the value must be before or after")
    return cast("When", value)


_NULL: Final = Status(200, body="")
"""What NestJS makes of a null: the service does not know the id, or not yet."""

_KINDS: Final[dict[str, Callable[[str], Fault]]] = {
    "delay": lambda value: Delay(float(value)),
    "drop": lambda value: Drop(_when(value)),
    "reset": lambda value: Reset(_when(value)),
    "hang": lambda value: Hang(_when(value or "after")),
    "truncate": lambda value: Truncate(int(value)),
    "redirect": Redirect,
    "garbage": lambda value: Garbage(),
    "null": lambda value: _NULL,
    "lag": lambda value: Lag(float(value)),
    "twice": lambda value: Twice(),
    "refuse-variables": RefuseVariables,
    "forget-variables": ForgetVariables,
}


def describe(planned: Planned) -> str:
    """A planned fault in the words of :data:`FAULT_SYNTAX`, for people."""
    words = (word for word, of in _OPERATIONS.items() if of == planned.operations)
    operation = next(words, "+".join(planned.operations))
    kinds = "+".join(_describe(fault) for fault in planned.faults)
    times = "" if planned.left is None else f",times={planned.left}"
    share = "" if planned.share == 1 else f",share={planned.share:g}"
    chosen = "" if planned.when is None else " where it fits"
    return f"{operation}:{kinds}{times}{share}{chosen}"


def _describe(fault: Fault) -> str:
    match fault:
        case Status(status=200, body=""):
            return "null"
        case Status(status=status, retry_after=None):
            return str(status)
        case Status(status=status, retry_after=retry_after):
            return f"{status},retry_after={retry_after}"
        case Delay(seconds=seconds):
            return f"delay={seconds:g}"
        case Truncate(keep=keep):
            return f"truncate={keep}"
        case Redirect(location=location):
            return f"redirect={location}"
        case Garbage() | Twice():
            return type(fault).__name__.lower()
        case Lag(seconds=seconds):
            return f"lag={seconds:g}"
        case RefuseVariables(prefix=prefix):
            return f"refuse-variables={prefix}"
        case ForgetVariables(prefix=prefix):
            return f"forget-variables={prefix}"
        case _:
            return f"{type(fault).__name__.lower()}={fault.when}"
