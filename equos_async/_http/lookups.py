"""Look up host names and proxies in threads of the client.

The event loop's default executor belongs to the program, whose blocking work may fill it. A stop
must not wait for that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.helpers import get_env_proxy_for_url
from yarl import URL

T = TypeVar("T")

MAX_THREADS: Final = 4
"""Concurrent look-ups; the connector makes one for each host, and caches its result."""

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Lookups(AbstractResolver):
    """The look-ups of one client; its threads start with the first look-up."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(MAX_THREADS, "equos-async-lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Find the addresses of a host."""
        return await self._run(_addresses, host, port, family)

    async def find_proxy(self, url: URL) -> tuple[URL, str | None] | None:
        """Find the proxy that the environment names for a URL, and its credentials."""
        return await self._run(_proxy, url)

    async def close(self) -> None:
        """Stop the threads, without waiting for them."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        try:
            found = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        except RuntimeError:  # Python ends, and gives no more threads: nothing else waits
            return function(*args)
        return await found


def default_resolver() -> AbstractResolver | None:
    """A resolver of aiohttp that needs no threads, if one is installed."""
    is_threaded = aiohttp.DefaultResolver is aiohttp.ThreadedResolver
    return None if is_threaded else aiohttp.DefaultResolver()


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(
        host, port, family, socket.SOCK_STREAM, 0, getattr(socket, "AI_ADDRCONFIG", 0)
    )
    return [
        ResolveResult(
            hostname=host,
            host=_numeric(address),
            port=port,
            family=kind,
            proto=proto,
            flags=_NUMERIC,
        )
        for kind, _, proto, _, address in found
    ]


def _numeric(address: Any) -> str:
    """An address as text, with the interface if the address is local to one."""
    return socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]


def _proxy(url: URL) -> tuple[URL, str | None] | None:
    try:
        proxy, auth = get_env_proxy_for_url(url)
    except LookupError:
        return None
    return proxy, None if auth is None else auth.encode()
