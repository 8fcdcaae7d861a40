"""Make LiveKit access tokens; by default they are well-formed, but no server accepts them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Final

from attrs import field, frozen

LIFETIME: Final = 6 * 3600
"""Seconds that a token is valid; LiveKit's own default."""


@frozen
class LiveKit:
    """A LiveKit server, and the key that signs its access tokens.

    Attributes:
        url: The URL for participants.
        key: The name of the API key.
        secret: The secret of the API key.
        real: Whether the server exists: its tokens are valid from the real time, not from the time
            of the emulator's clock.
    """

    url: str = "wss://rtc.example.test"
    key: str = "equos-emulator"
    secret: str = field(default="a secret that opens nothing", repr=False)
    real: bool = False

    def token(self, room: str, identity: str, name: str, now: float) -> str:
        """A JWT with the claims of LiveKit's ``AccessToken``."""
        begins = int(time.time() if self.real else now)
        claims = {
            "iss": self.key,
            "sub": identity,
            "name": name,
            "nbf": begins,
            "exp": begins + LIFETIME,
            "video": {
                "room": room,
                "roomJoin": True,
                "canPublish": True,
                "canPublishData": True,
                "canSubscribe": True,
            },
        }
        signed = f"{_HEADER}.{_encode(json.dumps(claims).encode())}"
        digest = hmac.digest(self.secret.encode(), signed.encode(), hashlib.sha256)
        return f"{signed}.{_encode(digest)}"


def livekit(url: str | None, key: str | None, secret: str | None) -> LiveKit:
    """The server of these arguments; without any, one that does not exist.

    Raises:
        ValueError: Some are given, but not all.
    """
    if url is None and key is None and secret is None:
        return LiveKit()
    if not (url and key and secret):
        raise ValueError("pass livekit_url, livekit_key and livekit_secret together")
    return LiveKit(url, key, secret, real=True)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_HEADER: Final = _encode(b'{"alg":"HS256","typ":"JWT"}')
