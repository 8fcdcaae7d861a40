"""Serve an application on a TCP port, with the settings of a Node server."""

from __future__ import annotations

import logging
import socket
from typing import Final

from aiohttp import web

_LOGGER: Final = logging.getLogger(__name__)
# aiohttp logs hostile input: by default that is not printed on the terminal.
_LOGGER.addHandler(logging.NullHandler())

KEEP_ALIVE: Final = 5.0
"""Seconds after which an idle connection is closed; Node's default."""


class Listener:
    """Serves one application at a time."""

    def __init__(self) -> None:
        self._runner: web.AppRunner | None = None

    async def start(self, app: web.Application, host: str, port: int) -> int:
        """Listen on an address.

        Args:
            app: The application.
            host: The address.
            port: The port; 0: any free one.

        Returns:
            The port.

        Raises:
            OSError: It cannot listen there.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=4096)
        # Without handler_cancellation a hanging request would not end when its caller has gone.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_LOGGER,
            handler_cancellation=True,
            keepalive_timeout=KEEP_ALIVE,
            shutdown_timeout=0.1,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
