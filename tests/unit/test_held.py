"""What the client holds for open blocks and fleets."""

from __future__ import annotations

from equos_async._api.operations import SESSION
from equos_async._calls.held import Held


def test_one_that_is_stopped_while_another_one_is_launched() -> None:
    """It is not stopped again."""
    held, launched = Held(), list[str]()

    def launch(_: object, session_id: str, __: object) -> None:
        launched.append(session_id)
        held.take("first")

    held.add("first", SESSION)
    held.add("second", SESSION)
    held.end_all(launch, also_left=True)
    assert launched == ["second"]
    assert held.targets() == []
