"""What a signal handler raises may strike the library anywhere: nothing is left then."""

from __future__ import annotations

import pytest

from tests.fleet.programs import program


@pytest.mark.parametrize("wire", ["direct", "session"])
@pytest.mark.parametrize("holder", ["bare", "block"])
async def test_anywhere(holder: str, wire: str) -> None:
    """Nothing is left; in the middle of an answer, aiohttp's session may lose that, and it is told.

    What nobody closed, because the loop ended early, warns.
    """
    async with program("", "-m", "tests.process.struck", holder, wire, "37") as struck:
        assert await struck.end() == 0
    lines = struck.printed.splitlines()
    (last,) = [line for line in lines if line.endswith(" strikes")]
    left = [line for line in lines if ": left " in line]
    lost = ["left 1, told 1"] if wire == "session" else []
    assert {line.partition(": ")[2] for line in left} <= {"left 0, told 1", *lost}, left
    assert int(last.removesuffix(" strikes")) > 20
