"""The client keys and server keys that the emulator accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, define

Key = Literal["client_key", "api_key"]


@define(repr=False)
class Keys:
    """The accepted keys of both kinds.

    Attributes:
        client_key: The only client key that is accepted; None: any that is not revoked.
        api_key: The only server key that is accepted; None: any that is not revoked.
        revoked: Keys of either kind that are refused.
    """

    client_key: str | None = None
    api_key: str | None = None
    revoked: set[str] = Factory(set[str])

    def accept(self, kind: Key, headers: Mapping[str, str]) -> bool:
        """Whether a request's headers contain an accepted key of this kind."""
        wanted = self.client_key if kind == "client_key" else self.api_key
        key = _bearer(headers) if kind == "client_key" else headers.get("x-api-key", "").strip()
        return bool(key) and key not in self.revoked and wanted in {None, key}


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
