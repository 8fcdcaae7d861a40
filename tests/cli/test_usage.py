"""Help, examples, and wrong usage."""

from __future__ import annotations

import re
import shlex

import pytest

from equos_async.cli import EXAMPLES, PROGRAM, _parser, main


def test_the_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """A script's author finds them without reading the source."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "5 the outcome of a start is unknown" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["", *EXAMPLES])
def test_each_help_fits_a_terminal(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is longer than 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples are valid commands, and each command has one."""
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    _, told = capsys.readouterr().out.split("examples:\n")
    assert [line.strip() for line in told.splitlines()] == [
        *(f"{PROGRAM} {x}" for x in EXAMPLES[name]),
        "",
        f"exit codes: {PROGRAM} --help",
    ]
    for example in EXAMPLES[name]:
        assert _parser().parse_args(shlex.split(example)).run


def test_each_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage is one line, which names the help, and here also each command."""
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert told.endswith("(see equos-async --help)\n")
    assert set(re.findall(r"\w+", told.partition("choose from")[2])) >= EXAMPLES.keys()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--port=99999", "must be from 0 to 65535, not '99999'"),
        ("--port=x", "must be from 0 to 65535, not 'x'"),
        ("--fault=pause:429", "the operation must be one of start, stop,"),
        ("--fault=start:what", "the kind must be a status or one of delay, drop,"),
        ("--fault=start:700", "a status must be from 200 to 599"),
        (
            "--fault=start:429,size=3",
            "there is no option size: there are times, share and, for a status, retry_after",
        ),
        ("--fault=start:drop=x", "the value must be before or after"),
    ],
)
def test_a_wrong_option_is_one_line(
    option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what would be right."""
    with pytest.raises(SystemExit, match="2"):
        main(["emulator", option])
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1


def test_a_setting_that_the_emulator_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line and exit code 2, as with the other commands."""
    monkeypatch.delenv("LIVEKIT_URL", raising=False)
    assert main(["emulator", "--livekit"]) == 2
    assert "--livekit: not set: LIVEKIT_URL" in capsys.readouterr().err
