"""The exceptions: one tree, plain values, and nothing that cannot travel."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest

import equos_async
from equos_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    EquosError,
    InternalServerError,
    OverloadedError,
    RateLimitError,
    StartOutcomeUnknownError,
    StartUnreadableError,
)
from equos_async.errors import status_error_class

ALL = [
    one
    for one in (getattr(equos_async, name) for name in equos_async.__all__)
    if inspect.isclass(one) and issubclass(one, BaseException)
]


@pytest.mark.parametrize("cls", ALL)
def test_all_are_ours(cls: type[BaseException]) -> None:
    """``except EquosError`` catches all."""
    assert issubclass(cls, EquosError)


def test_the_tree() -> None:
    """The classes and their bases."""
    assert len(ALL) == 20
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(APITimeoutError, APIConnectionError)
    assert issubclass(StartUnreadableError, StartOutcomeUnknownError)
    assert not issubclass(StartOutcomeUnknownError, (APIConnectionError, APIStatusError))


def through_pickle(error: EquosError) -> EquosError:
    """The error as another process gets it."""
    there: EquosError = pickle.loads(pickle.dumps(error))
    return there


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, through_pickle])
def test_they_travel(cls: type[EquosError], travel: Callable[[EquosError], EquosError]) -> None:
    """Each pickles and copies with all that it holds."""
    error = cls("words")
    error.operation, error.attempts = "start", 3
    error.session_id, error.request_id = "s-1", "r-1"
    error.add_note("a note")
    there = travel(error)
    assert type(there) is cls
    assert there.args == ("words",)
    assert vars(there) == vars(error)


def test_keywords() -> None:
    """The additional arguments of a class are attributes."""
    refused = RateLimitError("slow down", status=429, retry_after=2.0, body="{}", request_id="r")
    assert (refused.status, refused.message, refused.retry_after) == (429, "slow down", 2.0)
    assert (refused.body, refused.request_id, str(refused)) == ("{}", "r", "429: slow down")
    assert OverloadedError("later", retry_after=9.0, operation="start").retry_after == 9.0


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, equos_async.BadRequestError),
        (401, equos_async.AuthenticationError),
        (403, equos_async.PermissionDeniedError),
        (404, equos_async.NotFoundError),
        (409, equos_async.ConflictError),
        (422, equos_async.UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (599, InternalServerError),
        (600, APIStatusError),
        (418, APIStatusError),
        (307, APIStatusError),
    ],
)
def test_each_status_has_its_class(status: int, cls: type[APIStatusError]) -> None:
    """The status decides the class."""
    assert status_error_class(status) is cls
