"""Make the bodies and headers of answers: JSON, null, and errors as NestJS writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from attrs import Factory, frozen

_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}


@frozen
class Reply:
    """The status, body and headers of an answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = Factory(dict[str, str])


def null(status: int) -> Reply:
    """Null: NestJS sends an empty body without a Content-Type."""
    return Reply(status)


def error(status: int, message: str | list[str], name: str | None = None) -> Reply:
    """A NestJS error: ``{"statusCode", "message": string or list of strings, "error"?}``."""
    body: dict[str, object] = {"message": message, "statusCode": status}
    if name is not None:
        body["error"] = name
    return json_reply(status, body)


def json_reply(status: int, body: object) -> Reply:
    """An answer in JSON."""
    return Reply(status, json.dumps(body).encode(), _JSON)


def date(at: float) -> str:
    """A time as RFC 3339, with milliseconds and ``Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
