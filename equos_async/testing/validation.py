"""What the server's validation pipe says of a start's body.

Assumption: the words are class-validator's defaults, one message a field; unknown fields are
ignored, and null counts as absent where a field is optional.
"""

from __future__ import annotations

import math
from typing import Any, cast

_REFERENCES = (("avatar", ("id",)), ("agent", ("id",)), ("consumerIdentity", ("identity", "name")))


def problems(body: object) -> list[str]:
    """The messages for a body; none: it is good."""
    fields = fields_of(body)
    return [
        *_of_name(fields.get("name")),
        *_of_optional_texts(fields),
        *_of_duration(fields.get("maxDuration")),
        *_of_references(fields),
        *_of_variables(fields.get("templateVars")),
    ]


def fields_of(body: object) -> dict[str, Any]:
    """The fields of a JSON object; none for any other value."""
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _of_name(name: object) -> list[str]:
    if not isinstance(name, str):
        return ["name must be a string"]
    return [] if name else ["name should not be empty"]


def _of_optional_texts(fields: dict[str, Any]) -> list[str]:
    return [
        f"{name} must be a string"
        for name in ("client", "additionalCtx")
        if not isinstance(fields.get(name), str | None)
    ]


def _of_duration(duration: object) -> list[str]:
    if duration is None:
        return []
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        return ["maxDuration must be a number conforming to the specified constraints"]
    if not math.isfinite(_as_double(duration)):
        return ["maxDuration must be a number conforming to the specified constraints"]
    return [] if duration > 0 else ["maxDuration must be a positive number"]


def _as_double(number: float) -> float:
    """The number as JavaScript holds it."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _of_references(fields: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for field, keys in _REFERENCES:
        part = fields.get(field)
        if part is None:
            found.append(f"{field} should not be null or undefined")
        elif not isinstance(part, dict):
            found.append(f"{field} must be an object")
        else:
            values = cast("dict[str, object]", part)
            found += [
                f"{field}.{key} must be a string"
                for key in keys
                if not isinstance(values.get(key), str)
            ]
    return found


def _of_variables(variables: object) -> list[str]:
    return [] if isinstance(variables, dict | None) else ["templateVars must be an object"]
