"""The pool of connections: none is handed out on which the server spoke unasked."""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

MAX_UNASKED: Final = 32
"""Connections on which the server spoke unasked that one request skips before it gives up."""


class Connector(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which the server spoke unasked.

    aiohttp would give such an answer to the next request as its own (aio-libs/aiohttp#13656).
    """

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        for _ in range(MAX_UNASKED):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        raise aiohttp.ClientConnectionError("the server speaks before it is asked")
