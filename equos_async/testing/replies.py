"""Answers before they meet a socket: JSON, null, refusals in the words of NestJS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from attrs import Factory, frozen

_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}


@frozen
class Reply:
    """An answer, before it meets a socket."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = Factory(dict[str, str])


def null(status: int) -> Reply:
    """NestJS sends a handler's null as an empty body without a Content-Type."""
    return Reply(status)


def error(status: int, message: str | list[str], name: str | None = None) -> Reply:
    """NestJS: ``{"statusCode", "message": string or list of strings, "error"?}``."""
    body: dict[str, object] = {"message": message, "statusCode": status}
    if name is not None:
        body["error"] = name
    return json_reply(status, body)


def json_reply(status: int, body: object) -> Reply:
    """An answer in JSON."""
    return Reply(status, json.dumps(body).encode(), _JSON)


def date(at: float) -> str:
    """RFC 3339 with milliseconds and ``Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
