"""What a signal handler raises may strike the library anywhere: nothing is left then."""

from __future__ import annotations

import pytest

from tests.fleet.programs import program


@pytest.mark.parametrize("wire", ["direct", "session"])
@pytest.mark.parametrize("holder", ["bare", "block"])
async def test_anywhere(holder: str, wire: str) -> None:
    """Usually no session is left; if the signal hits the reading of an answer, it is reported.

    What nobody closed, because the loop ended early, warns.
    """
    async with program("", "-m", "tests.process.struck", holder, wire, "37") as struck:
        assert await struck.end() == 0
    lines = struck.printed.splitlines()
    (last,) = [line for line in lines if line.endswith(" strikes")]
    found = [line.partition(": ")[2] for line in lines if ": left " in line]
    assert set(found) <= {"left 0, told 1", "left 1, told 1"}, struck.printed
    strikes = int(last.removesuffix(" strikes"))
    assert found.count("left 1, told 1") * 20 < strikes > 20
