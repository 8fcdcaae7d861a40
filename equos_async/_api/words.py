"""Mask keys and tokens in the server's texts."""

from __future__ import annotations

import json
import re
from typing import Final
from urllib.parse import quote

from equos_async._validate import Secret

MAX_HEAD: Final = 16_384
"""Characters that are searched; the rest of a longer text is dropped."""

SHORT_KEY: Final = 8
"""A shorter key may be part of ordinary words: only its header forms are masked."""

MAX_KEYS: Final = 1000
"""The number of secrets that are masked: the newest."""

# Compiled when they are first needed, which in most programs is never.
_RUN = r"[\w.-]+"
_HEADER = r"""(?i:bearer|x-api-key)([\s:="'\\]|%20|\+)+"""


class Masker:
    """Masks secrets in a text, in each form in which a server may echo them, and JWTs.

    Its time is proportional to the length of the text.

    Args:
        secrets: The secrets that are masked from the beginning.
    """

    def __init__(self, *secrets: str) -> None:
        self._secrets: dict[Secret, tuple[Secret, ...]] = {}
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Mask one more from now on."""
        forms = {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}
        self._secrets.setdefault(Secret(secret), tuple(map(Secret, forms)))
        if len(self._secrets) > MAX_KEYS:
            del self._secrets[next(iter(self._secrets))]

    def __call__(self, text: str) -> str:
        """Mask the secrets in a text."""
        cut = len(text) > MAX_HEAD
        text = text[:MAX_HEAD]
        for secret, forms in self._secrets.items():
            for form in forms:
                if len(secret) < SHORT_KEY:
                    text = re.sub(f"{_HEADER}{re.escape(form)}(?![\\w-])", "***", text)
                else:
                    text = text.replace(form, "***")
                    text = _without_beginning(text, form) if cut else text
        return re.sub(_RUN, lambda run: _mask_jwt(run[0], cut=cut and run.end() == len(text)), text)


def _mask_jwt(run: str, *, cut: bool) -> str:
    """Mask a JWT, even a truncated one, in a run of characters that may be one."""
    start = run.find("eyJ")
    if start < 0 or (run.count(".", start) < 2 and not cut):
        return run
    return run[:start] + "***"


def _without_beginning(text: str, form: str) -> str:
    """Remove the beginning of a key from the end of a truncated text."""
    for length in range(len(form) - 1, 3, -1):
        if text.endswith(form[:length]):
            return text[:-length] + "***"
    return text
