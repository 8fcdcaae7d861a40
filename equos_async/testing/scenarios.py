"""Scenarios: named sequences of faults, shared by users, the demo and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen

from .faults import Delay, Drop, Reset, Status
from .plan import ALL, Faults, Planned

_GATEWAY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head></html>\n"
_BAD_GATEWAY: Final = Status(502, body=_GATEWAY_PAGE, headers={"Content-Type": "text/html"})


@frozen
class Scenario:
    """A named sequence of faults: ``SCENARIOS["deploy"].play(emulator.faults)``.

    Attributes:
        name: Its name.
        about: A sentence that describes it.
        steps: Its faults, in their order.
    """

    name: str
    about: str
    steps: tuple[Planned, ...]

    def play(self, faults: Faults) -> None:
        """Add its faults to those that are already there."""
        for step in self.steps:
            faults.append(step)


_ALL = (
    Scenario(
        "bad day",
        "A share of all requests is throttled, refused, dropped or slow; the demo's server.",
        (
            Planned(("start",), (Status(429, retry_after=1),), left=None, share=0.015),
            Planned(("start",), (Status(503, retry_after=1),), left=None, share=0.01),
            Planned(("start",), (Status(503),), left=None, share=0.01),
            Planned(("start",), (Drop("before"),), left=None, share=0.02),
            Planned(("start",), (Drop("after"),), left=None, share=0.02),
            Planned(("start",), (Delay(0.3),), left=None, share=0.15),
            Planned(("stop",), (Drop("after"),), left=None, share=0.08),
            Planned(("stop",), (_BAD_GATEWAY,), left=None, share=0.08),
        ),
    ),
    Scenario(
        "brown-out",
        "Until 60 requests were hit, most are refused or slow; then all is well.",
        (
            Planned(ALL, (Status(503),), left=30, share=0.5),
            Planned(ALL, (Delay(0.3), Status(503, retry_after=1)), left=10, share=0.3),
            Planned(ALL, (Delay(0.3),), left=20, share=0.7),
        ),
    ),
    Scenario(
        "deploy",
        "Connections break in mid-flight, a proxy answers for a while, the first starts are slow.",
        (
            Planned(ALL, (Reset("after"),), left=1),
            Planned(ALL, (Drop("before"),), left=2),
            Planned(ALL, (_BAD_GATEWAY,), left=3),
            Planned(ALL, (Status(503, retry_after=1),), left=5),
            Planned(("start",), (Delay(0.5),), left=10),
        ),
    ),
    Scenario(
        "over limit",
        "Starts are throttled, first with and then without a Retry-After, one for good.",
        (
            Planned(("start",), (Status(429, "Too Many Requests", retry_after=1),), left=5),
            Planned(("start",), (Status(429, "Concurrent sessions limit reached"),), left=3),
            Planned(("start",), (Status(403, "Organization is suspended"),), left=1),
        ),
    ),
    Scenario(
        "slow starts",
        "Starts take half a second, some take two, and some are live long before their answer.",
        (
            Planned(("start",), (Delay(2.0),), left=None, share=0.1),
            Planned(("start",), (Delay(1.5, "after"),), left=None, share=0.2),
            Planned(("start",), (Delay(0.5),), left=None),
        ),
    ),
)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({one.name: one for one in _ALL})
"""The scenarios by name."""
