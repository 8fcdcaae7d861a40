"""The messages of the server's validation pipe for the body of a start or the query of a list.

Assumption: they are class-validator's default messages, one for each field; unknown fields are
ignored, and null counts as absent if the field is optional.
"""

from __future__ import annotations

import math
import re
from typing import Any, cast

from multidict import MultiMapping

_PARTICIPANT = ("identity", "name")

MOST = 50
"""The largest number of items of a page (SDK)."""

_LARGEST = 2**53 - 1


def problems_of_session(body: object) -> list[str]:
    """The messages for a session pass's body; empty if it is valid."""
    fields = fields_of(body)
    return [
        *_of_name(fields.get("name")),
        *_of_optional_texts(fields, "client", "additionalCtx"),
        *_of_seconds(fields, "maxDuration"),
        *_of_part(fields, "avatar", ("id",)),
        *_of_part(fields, "agent", ("id",)),
        *_of_part(fields, "consumerIdentity", _PARTICIPANT),
        *_of_variables(fields, "templateVars"),
    ]


def problems_of_conversation(body: object) -> list[str]:
    """The messages for a conversation's body; empty if it is valid."""
    fields = fields_of(body)
    return [
        *_of_name(fields.get("name")),
        *_of_character(fields.get("characterId")),
        *_of_optional_texts(fields, "client", "promptCtx"),
        *_of_seconds(fields, "maxSeconds"),
        *_of_part(fields, "host", ("serverUrl", "accessToken"), optional=True),
        *_of_part(fields, "remoteAgent", _PARTICIPANT, optional=True),
        *_of_part(fields, "consumer", _PARTICIPANT, optional=True),
        *_of_variables(fields, "promptTemplateVars"),
    ]


def problems_of_page(query: MultiMapping[str]) -> list[str]:
    """The messages for a list's query; empty if it is valid."""
    return [
        *_of_number(query, "take", 1, MOST),
        *_of_number(query, "skip", 0, _LARGEST),
        *(["client must be a string"] if len(query.getall("client", ())) > 1 else ()),
    ]


def fields_of(body: object) -> dict[str, Any]:
    """The fields of a JSON object; empty for any other value."""
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _of_name(name: object) -> list[str]:
    if not isinstance(name, str):
        return ["name must be a string"]
    return [] if name else ["name should not be empty"]


def _of_character(character_id: object) -> list[str]:
    return [] if isinstance(character_id, str) else ["characterId must be a string"]


def _of_optional_texts(fields: dict[str, Any], *names: str) -> list[str]:
    return [
        f"{name} must be a string" for name in names if not isinstance(fields.get(name), str | None)
    ]


def _of_seconds(fields: dict[str, Any], name: str) -> list[str]:
    seconds = fields.get(name)
    if seconds is None:
        return []
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return [f"{name} must be a number conforming to the specified constraints"]
    if not math.isfinite(_as_double(seconds)):
        return [f"{name} must be a number conforming to the specified constraints"]
    return [] if seconds > 0 else [f"{name} must be a positive number"]


def _as_double(number: float) -> float:
    """The number as a JavaScript number."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _of_part(
    fields: dict[str, Any], name: str, keys: tuple[str, ...], *, optional: bool = False
) -> list[str]:
    part = fields.get(name)
    if part is None:
        return [] if optional else [f"{name} should not be null or undefined"]
    if not isinstance(part, dict):
        return [f"{name} must be an object"]
    values = cast("dict[str, object]", part)
    return [
        f"{name}.{key} must be a string" for key in keys if not isinstance(values.get(key), str)
    ]


def _of_variables(fields: dict[str, Any], name: str) -> list[str]:
    return [] if isinstance(fields.get(name), dict | None) else [f"{name} must be an object"]


def _of_number(query: MultiMapping[str], name: str, least: int, most: int) -> list[str]:
    values = query.getall(name, [str(least)])
    # The vendor's Python SDK sends 20.0.
    if len(values) > 1 or not re.fullmatch(r"-?[0-9]{1,16}(\.0+)?", values[0]):
        return [f"{name} must be an integer number"]
    number = float(values[0])
    if number > most:
        return [f"{name} must not be greater than {most}"]
    return [f"{name} must not be less than {least}"] if number < least else []
