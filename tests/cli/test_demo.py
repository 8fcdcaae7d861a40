"""The command ``demo``."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from equos_async import Settle, Timeouts, Unresolved
from equos_async.cli import demo, main


class TestDemo:
    def test_it_ends_with_nothing_unreported(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A small demo without a terminal: plain lines, the table, exit code 0."""
        monkeypatch.setattr(demo, "SETTLE", Settle(patience=1, look_for=1))
        assert main(["demo", "--sessions=60", "--at-once=30", "--seed=3"]) == 0
        out = capsys.readouterr().out
        assert "0/60  started 0" in out
        rows = self.table(out)
        assert rows["sessions started"] == rows["sessions stopped"] > 0
        assert rows["left on the server"] <= rows["outcome unknown"]

    @staticmethod
    def table(out: str) -> dict[str, int]:
        """The numbers in the table, by the words before them."""
        found = re.findall(r"^([a-z][a-z0-9 ]*?) +([0-9]+)\b", out, re.MULTILINE)
        return {name: int(number) for name, number in found}

    @pytest.mark.parametrize("options", [(), ("--no-settle",)])
    def test_it_fits_a_terminal(
        self,
        options: tuple[str, ...],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Of 80 columns."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:drop=after,times=20",))
        assert main(["demo", "--sessions=200", "--at-once=100", *options]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) < 80

    def test_lost_starts_are_made_again(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Found by the server key and ended first, so that nothing is left."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:drop=after,times=3",))
        monkeypatch.setattr(demo, "SETTLE", Settle(patience=100, look_for=100))
        monkeypatch.setattr(demo, "TIMES", Timeouts(deadline=200))
        assert main(["demo", "--sessions=5", "--at-once=5"]) == 0
        rows = self.table(capsys.readouterr().out)
        told = ("sessions started", "lost starts found", "made again", "left on the server")
        assert [rows[name] for name in told] == [5, 3, 3, 0]

    def test_with_a_terminal_it_shows_a_bar(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a terminal rich draws a live line."""
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["demo", "--sessions=2", "--at-once=2"]) == 0
        assert "2/2" in capsys.readouterr().out

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_stops_the_sessions(self, number: signal.Signals, code: int) -> None:
        """After a signal it stops its sessions, prints the table, and has its exit code."""
        argv = [sys.executable, "-m", "equos_async", "demo", "--sessions=5000"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(number)
        out = process.stdout.read()
        process.stdout.close()
        assert process.wait() == code
        assert "left on the server" in self.table(out)
        assert "not reported" not in out

    def test_its_emulator_does_not_outlive_it(self) -> None:
        """Even if the demo is killed: both hold the pipe of errors, which ends with the last."""
        argv = [sys.executable, "-m", "equos_async", "demo", "--sessions=5000"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def test_nobody_reads_what_it_tells(self) -> None:
        """As of `| head -1`: its sessions are stopped, and one line says why it ends."""
        argv = [sys.executable, "-m", "equos_async", "demo", "--sessions=5000"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == "the output was closed before all of it was written\n"
        process.stderr.close()
        assert process.wait() == 141

    @pytest.mark.parametrize("option", ["--sessions=0", "--at-once=0", "--at-once=-1"])
    def test_it_refuses_no_work(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a session or a worker there is nothing to show, and nothing is started."""
        with pytest.raises(SystemExit, match="2"):
            main(["demo", option])
        assert "must be a whole number of at least 1" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["loads", "suppress"])
    def test_the_emulator_ends_whatever_happens(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A Ctrl-C while its first line is read, or right after, leaves no process behind."""
        spawned: list[subprocess.Popen[str]] = []
        real = subprocess.Popen

        def spawn(*args: Any, **options: Any) -> subprocess.Popen[str]:
            spawned.append(real(*args, **options))
            return spawned[-1]

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess, "Popen", spawn)
        monkeypatch.setattr(json if name == "loads" else demo, name, interrupt)
        assert main(["demo"]) == 130
        assert [process.returncode is None for process in spawned] == [False]

    def test_an_interrupted_demo_still_prints_its_table(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The table is there, and the exit code is 130."""
        real = asyncio.run

        def interrupted(work: Any) -> None:
            real(work)
            raise KeyboardInterrupt

        monkeypatch.setattr(asyncio, "run", interrupted)
        assert main(["demo", "--sessions=1", "--at-once=1"]) == 130
        assert self.table(capsys.readouterr().out)["left on the server"] == 0

    def test_a_refused_start_is_counted(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing exists then, and nothing is left."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:400",))
        assert main(["demo", "--sessions=3", "--at-once=1"]) == 0
        assert self.table(capsys.readouterr().out)["failed"] == 3

    def test_what_nobody_reported_is_a_failure(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session that is left and that the client does not know of is exit code 1."""

        def unreported(*_: object) -> list[str]:
            return ["demo-1"]

        monkeypatch.setattr(demo, "unreported", unreported)
        assert main(["demo", "--sessions=1"]) == 1
        assert "not reported: ['demo-1']" in capsys.readouterr().out

    def test_what_is_left_is_told_in_words(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the server key a lost start leaves a session, and the table says so."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:drop=after,times=1",))
        assert main(["demo", "--sessions=3", "--at-once=1", "--no-settle"]) == 0
        out = capsys.readouterr().out
        words = "1, whose start's answer was lost; each was reported"
        assert re.search(rf"^left on the server +{words}$", out, re.MULTILINE)
        assert "made again" not in out

    def test_it_prints_json(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing but one object, with the numbers of the table and their units."""
        monkeypatch.setattr(demo, "SERVER", ("--fault=start:400,times=1",))
        assert main(["demo", "--sessions=3", "--at-once=1", "--no-settle", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["unreported"] == []
        assert [told[name] for name in ("sessions_started", "failed", "left_on_the_server")] == [
            2,
            1,
            0,
        ]
        assert told["start_latency_p99_ms"] > 0
        assert "billed_s" in told

    def test_known_by_id_or_by_name(self) -> None:
        """A session counts as reported by its id or by the name of its unknown start."""
        now = datetime.now(UTC)
        known = [
            Unresolved(operation="start", reason="", at=now, name="a"),
            Unresolved(operation="stop", reason="", at=now, session_id="2"),
        ]
        live = [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "3", "name": "c"}]
        assert demo.unreported(live, known) == ["c"]

    def test_it_works_without_rich(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The extra ``cli`` is optional: a terminal shows plain lines then."""
        monkeypatch.setitem(sys.modules, "rich", None)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["demo", "--sessions=3", "--at-once=1"]) == 0
        assert capsys.readouterr().out.startswith("0/3  started 0")
