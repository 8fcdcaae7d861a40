"""Check the arguments of a start, and make the record of its session."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from equos_async import _validate
from equos_async._api.operations import resource_of
from equos_async.errors import ConfigurationError

from ._presence import presence_of
from ._session import HandOver, Owner, Renew, SessionRecord
from .values import AnyRequest

GroupOf = Callable[[AnyRequest], str | None]


def asked(
    owner: Owner,
    request: AnyRequest,
    *,
    key: Hashable,
    deadline: float | None,
    seconds: float,
    group_of: GroupOf | None,
    join_within: float | None,
    idle_after: float | None,
    renew: bool | Renew[Any],
    on_renewed: HandOver[Any] | None,
) -> SessionRecord:
    """The record of a start; nothing is taken for it yet.

    Args:
        owner: The fleet that runs it.
        request: What is to be started.
        key: As in ``SessionFleet.start``.
        deadline: As there.
        seconds: How long the session may run, where the request does not say so.
        group_of: A function that returns the group of a request, where there are groups.
        join_within: As there.
        idle_after: As there.
        renew: As there.
        on_renewed: As there.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    resource = resource_of(request)
    group = _group(group_of, request)
    presence = presence_of(join_within, idle_after)
    if deadline is not None:
        _validate.number("deadline", deadline)
    if on_renewed is not None and not callable(on_renewed):
        raise ConfigurationError("on_renewed must be callable")
    if not isinstance(renew, bool) and not callable(renew):
        raise ConfigurationError("renew must be a bool or callable")
    if bool(renew) != (on_renewed is not None):
        raise ConfigurationError("pass renew and on_renewed together")
    duration = resource.seconds_of(request) or seconds
    return SessionRecord(
        owner=owner,
        key=key,
        resource=resource,
        request=resource.with_seconds(request, duration),
        duration=duration,
        deadline=deadline,
        renew=None if isinstance(renew, bool) else renew,
        hand_over=on_renewed,
        presence=presence,
        group=group,
    )


def _group(group_of: GroupOf | None, request: AnyRequest) -> str | None:
    if group_of is None:
        return None
    try:
        group = group_of(request)
    except Exception as error:
        told = f"group raised {type(error).__name__} for a request"
        raise ConfigurationError(told) from error
    return None if group is None else _validate.text("group", group, empty=True) or None
