"""LiveKit access tokens that are well-formed and open nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Final

SECRET: Final = b"a secret that opens nothing"
LIFETIME: Final = 6 * 3600
"""Seconds that a token is good for; LiveKit's own default."""


def access_token(room: str, identity: str, name: str, now: float) -> str:
    """A JWT with the claims of LiveKit's ``AccessToken``, signed with a throw-away secret."""
    claims = {
        "iss": "equos-emulator",
        "sub": identity,
        "name": name,
        "nbf": int(now),
        "exp": int(now) + LIFETIME,
        "video": {
            "room": room,
            "roomJoin": True,
            "canPublish": True,
            "canPublishData": True,
            "canSubscribe": True,
        },
    }
    signed = f"{_HEADER}.{_encode(json.dumps(claims).encode())}"
    return f"{signed}.{_encode(hmac.digest(SECRET, signed.encode(), hashlib.sha256))}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_HEADER: Final = _encode(b'{"alg":"HS256","typ":"JWT"}')
