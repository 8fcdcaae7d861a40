"""The script for shell completion, read by a real bash."""

from __future__ import annotations

import subprocess

import pytest

from equos_async.cli import main
from tests.needs import need

ASK = """
source /dev/stdin
complete -p equos-async
COMP_WORDS=({line}) COMP_CWORD={at}
_equos_async
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("equos-async e", "emulator"),
        ("equos-async s", "start stop sessions"),
        ("equos-async emulator --sc", "--scenario"),
        ("equos-async emulator --scenario de", "deploy"),
        ("equos-async emulator --seed 1 --log ''", "text json"),
        ("equos-async completion z", "zsh"),
        ("equos-async start --avatar --a", ""),  # any text: bash goes on with names of files
        ("equos-async unknown --", ""),
    ],
)
def test_bash(line: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, options and choices are completed in their positions."""
    (bash,) = need("bash")
    assert main(["completion", "bash"]) == 0
    ask = ASK.format(line=line, at=len(line.split()) - 1)
    done = subprocess.run(
        [bash, "--norc", "-c", ask],
        input=capsys.readouterr().out,
        capture_output=True,
        text=True,
        check=True,
    )
    registered, words = done.stdout.splitlines()
    assert registered == "complete -o default -F _equos_async equos-async"
    assert words == found
    assert done.stderr == ""


def test_zsh(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the script for bash, after what lets zsh run that."""
    assert main(["completion", "bash"]) == main(["completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    bash, _, _ = printed.partition("autoload")
    assert (
        printed == f"{bash}autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{bash}"
    )


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are known are named."""
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "fish"])
    assert "'bash', 'zsh'" in capsys.readouterr().err
