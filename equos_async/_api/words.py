"""What a server says, without the client key and without tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from equos_async._validate import Secret

MAX_HEAD: Final = 16_384
"""How many characters are looked at; the rest of a longer text is dropped."""

SHORT_KEY: Final = 8
"""A key of fewer characters may be part of words: only its header forms are masked."""

# Compiled when they are first needed, which in most programs is never.
_RUN = r"[\w.-]+"
_BEARER = r"(?i:bearer)([\s:=]|%20|\+)+"


def masker(client_key: str) -> Callable[[str], str]:
    """A function that takes the key out of a text, however a server would echo it, and JWTs.

    It takes time in proportion to the text. The key lives in its closure, where no repr and no
    ``vars()`` shows it.
    """
    forms = tuple(
        map(Secret, {client_key, json.dumps(client_key)[1:-1], quote(client_key, safe="")})
    )

    def mask(text: str) -> str:
        cut = len(text) > MAX_HEAD
        text = text[:MAX_HEAD]
        for form in forms:
            if len(client_key) < SHORT_KEY:
                text = re.sub(f"{_BEARER}{re.escape(form)}(?![\\w-])", "***", text)
            else:
                text = text.replace(form, "***")
                text = _without_beginning(text, form) if cut else text
        return re.sub(_RUN, lambda run: _mask_jwt(run[0], cut=cut and run.end() == len(text)), text)

    return mask


def _mask_jwt(run: str, *, cut: bool) -> str:
    """Mask a JWT in a run of characters that one can consist of, even one that was cut."""
    start = run.find("eyJ")
    if start < 0 or (run.count(".", start) < 2 and not cut):
        return run
    return run[:start] + "***"


def _without_beginning(text: str, form: str) -> str:
    """A text that was cut, without the beginning of a key at its end."""
    for length in range(len(form) - 1, 3, -1):
        if text.endswith(form[:length]):
            return text[:-length] + "***"
    return text
