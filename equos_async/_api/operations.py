"""The operations of the API, one row each.

All of it is pure. Sources, as named in the comments: *reference* is the vendor's published API
reference (version 3), *SDK* the vendor's published client libraries, *NestJS* the documented
default behaviour of the vendor's server framework.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from attrs import frozen

from equos_async._validate import Secret
from equos_async.errors import Operation
from equos_async.models import CreateSessionPassRequest

from .answers import decode_start, decode_stop
from .codec import ENCODER, converter

T_co = TypeVar("T_co", covariant=True)
# SDK: both vendor SDKs send "{}" with a stop; an empty body with this content type is refused
# by NestJS on Fastify (400), and so is aiohttp's default content type (415).
EMPTY_BODY: Final = b"{}"
_HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    # A compressed answer buys nothing at this size and has to be bounded after decompression.
    "Accept-Encoding": "identity",
}


@frozen(eq=False)
class Endpoint(Generic[T_co]):
    """One operation of the API.

    ``repeatable`` is stated, not derived from the verb: each accepted start makes another billed
    session, while a second stop of a session is answered with null (reference).
    """

    operation: Operation
    method: str
    path: str
    decode: Callable[[bytes], T_co]
    repeatable: bool

    def url(self, base: str, session_id: str = "") -> str:
        """The full URL, percent-encoded once and for all."""
        path = self.path.format(id=quote(session_id, safe="")) if session_id else self.path
        return base + path


def encode(request: CreateSessionPassRequest) -> bytes:
    """The body of a start; fields that are ``None`` are left out."""
    return ENCODER.encode(converter().unstructure(request)).encode()


START: Final = Endpoint("start", "POST", "/session-passes", decode_start, repeatable=False)
STOP: Final = Endpoint("stop", "PATCH", "/session-passes/{id}/stop", decode_stop, repeatable=True)


def headers(client_key: str) -> dict[str, str]:
    """The headers of every request. Reference, ``clientAuth``: the key is a bearer token."""
    return {**_HEADERS, "Authorization": Secret(f"Bearer {client_key}")}
