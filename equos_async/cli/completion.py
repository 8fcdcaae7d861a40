"""``completion``: print the script with which a shell completes commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

SHELLS: Final = ("bash", "zsh")

USE: Final = (
    'Add eval "$(equos-async completion bash)" to ~/.bashrc, or the same with zsh to ~/.zshrc.'
)

_ZSH: Final = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
"""With these functions zsh runs completions that are written for bash."""

_SCRIPT: Final = """_equos_async() {{
    local words=""
    case "$COMP_CWORD:${{COMP_WORDS[1]}}:${{COMP_WORDS[COMP_CWORD-1]}}" in
        {cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _equos_async {program}
"""
"""``-o default``: if no word matches, names of files are completed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of the command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")


def script(shell: str, program: str, commands: Mapping[str, Sequence[argparse.Action]]) -> str:
    """The script for a shell.

    Args:
        shell: One of :data:`SHELLS`.
        program: The name of the program.
        commands: Its commands, each with its arguments.
    """
    cases = [_case("1:*:*", commands)]  # the first pattern that matches counts
    for name, actions in commands.items():
        valued = [action for action in actions if action.nargs != 0 and action.option_strings]
        for action in valued:
            patterns = "|".join(f"*:{name}:{option}" for option in action.option_strings)
            cases.append(_case(patterns, action.choices or ()))
        cases.append(_case(f"*:{name}:*", _words(actions)))
    body = _SCRIPT.format(program=program, cases="\n        ".join(cases))
    return (_ZSH if shell == "zsh" else "") + body


def _words(actions: Iterable[argparse.Action]) -> Iterator[str]:
    """The options of a command, and the choices of its arguments."""
    for action in actions:
        yield from action.option_strings or action.choices or ()


def _case(pattern: str, words: Iterable[str]) -> str:
    return f'{pattern}) words="{" ".join(words)}" ;;'
