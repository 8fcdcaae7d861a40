"""Outputs that are closed, full, or know too few characters."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest

from equos_async.cli import main
from equos_async.testing import EquosEmulator

START = ["start", "--avatar=av_1", "--agent=ag_1", "--identity=user-7", "--endpoint"]
CLOSED = "the output was closed before all of it was written\n"


def test_a_session_whose_id_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output was closed by `>&-`: the session is stopped, and one line says why."""
    with EquosEmulator() as emulator, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main([*START, emulator.endpoint]) == 141
        sys.stdout.close()
        assert emulator.live_sessions == {}
        assert len(emulator.ended_sessions) == 1
    assert capsys.readouterr().err == CLOSED


def test_errors_that_nobody_wants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `2>&-` they are lost, and are not written to the output of programs instead."""
    with EquosEmulator() as emulator, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert main([*START, emulator.endpoint]) == 0
        sys.stderr.close()
        (session_id,) = emulator.live_sessions
    assert capsys.readouterr().out.splitlines()[0] == f"session {session_id} is started"


def test_an_output_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As on a full disk: the session is stopped, and one line names the error of the system."""
    (tmp_path / "read only").touch()
    read_only = os.open(tmp_path / "read only", os.O_RDONLY)
    with EquosEmulator() as emulator, monkeypatch.context() as patch:
        with open(read_only, "w", encoding="utf-8") as output:  # noqa: PTH123 - no path
            patch.setattr(sys, "stdout", output)
            assert main([*START, emulator.endpoint]) == 1
        assert emulator.live_sessions == {}
    assert capsys.readouterr().err.startswith("OSError: [Errno ")


def test_characters_that_it_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a locale without them they are escapes, and no command fails."""
    written = io.BytesIO()
    with EquosEmulator() as emulator, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
        assert main(["stop", "Zoë", "--endpoint", emulator.endpoint]) == 0
        assert written.getvalue() == rb"session Zo\xeb was not running" + os.linesep.encode()


def test_an_output_in_memory() -> None:
    """A program may call the command and catch its output."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(["completion", "bash"]) == 0
    assert "complete" in output.getvalue()
