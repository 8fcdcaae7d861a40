"""Read a list part by part."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from equos_async import _validate
from equos_async._api.listing import Listing
from equos_async._api.operations import Resource
from equos_async._retry.pages import TAKE

from .tasks import CallTasks

T = TypeVar("T")


async def read_all(
    tasks: CallTasks, resource: Resource[Any, Any, T], client: str | None
) -> AsyncGenerator[T, None]:
    """Read all items, or those of one client; no id is returned twice."""
    query: dict[str, object] = {"take": TAKE}
    if client is not None:
        query["client"] = _validate.text("client", client)
    listing = Listing[T]()
    while not listing.is_over:
        call = tasks.ask(resource.list, query={**query, "skip": listing.skip})
        for item in listing.take(await tasks.answer_of(call)):
            yield item
        if listing.problem is not None:
            tasks.reports.unreadable_fields(call, (listing.problem,))
