"""The live sessions of a fleet as handles, by key."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import cast

from equos_async._shown import keyed, named

from ._session import LiveSession, SessionRecord
from .values import K


class LiveView(Mapping[K, LiveSession[K]]):
    """A mapping of keys to the handles of live sessions.

    Args:
        records: The fleet's sessions.
    """

    def __init__(self, records: Mapping[Hashable, SessionRecord]) -> None:
        self._records = records

    def __getitem__(self, key: K) -> LiveSession[K]:
        return self._records[key].handle

    def __iter__(self) -> Iterator[K]:
        return cast("Iterator[K]", iter(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        keys = named(list(self._records), keyed)
        return f"<{', '.join([f'{len(self)} live', *keys])}>"
