"""The newest requests to the emulator, and the statuses of their answers."""

from __future__ import annotations

import threading
from collections import OrderedDict

from attrs import evolve

from .records import KEPT, EmulatorRequest, Operation, Resource, shorten


class Journal:
    """The newest requests, oldest first; its methods may be called from any thread."""

    def __init__(self) -> None:
        self.count: int = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, EmulatorRequest] = OrderedDict()

    def write(
        self,
        operation: Operation | None,
        method: str,
        path: str,
        at: float,
        *,
        name: str | None = None,
        session_id: str | None = None,
        resource: Resource | None = None,
    ) -> EmulatorRequest:
        """Record a request; long texts from its caller are cut."""
        with self._lock:
            self.count += 1
            request = EmulatorRequest(
                self.count,
                operation,
                shorten(method),
                shorten(path),
                at,
                None if name is None else shorten(name),
                None if session_id is None else shorten(session_id),
                resource=resource,
            )
            self._kept[request.number] = request
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return request

    def answer(self, request: EmulatorRequest, status: int) -> EmulatorRequest:
        """Record the status of a request's answer."""
        answered = evolve(request, status=status)
        with self._lock:
            if request.number in self._kept:
                self._kept[request.number] = answered
        return answered

    @property
    def requests(self) -> tuple[EmulatorRequest, ...]:
        """The newest requests, oldest first."""
        with self._lock:
            return tuple(self._kept.values())
