"""Read rows from an engine; leave out what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from attrs import fields

from .protocol import LedgerRow

FAR: Final = 1e12
"""Seconds since the epoch; a later time is invalid."""

_logger: Final = logging.getLogger("equos_async")
_NAMES: Final = frozenset(one.name for one in fields(LedgerRow))
_TEXT: Final = frozenset[type]({str})
_TEXT_OR_NONE: Final = frozenset[type]({str, type(None)})
_NUMBER: Final = frozenset[type]({int, float})


def row_of(given: Mapping[str, Any], read_at: float) -> LedgerRow | None:
    """Make a row from these values; fields of newer releases are left out.

    An invalid row is None, with a WARNING, so that it does not affect other rows.
    """
    known = {name: given[name] for name in _NAMES & given.keys()}
    known["read_at"] = read_at
    try:
        row = LedgerRow(**known)
    except TypeError:  # a field is missing
        row = None
    if row is not None and _is_sound(row):
        return row
    _logger.warning("a row of the ledger cannot be read: %.40s", ascii(given.get("id")))
    return None


def _is_sound(row: LedgerRow) -> bool:
    """Whether the fields have their declared types."""
    texts = (row.id, row.key, row.name, row.owner, row.endpoint, row.resource)
    may_be = (row.client, row.session_id, row.marker, row.group)
    numbers = (row.started, row.expires, row.version)
    return (
        _TEXT.issuperset(map(type, texts))
        and _TEXT_OR_NONE.issuperset(map(type, may_be))
        and _NUMBER.issuperset(map(type, numbers))
        and -FAR < row.started < FAR
        and -FAR < row.expires < FAR
    )
