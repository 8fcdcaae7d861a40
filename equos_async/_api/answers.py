"""Read answers: a value, a refusal, the id in a broken one, or that it is another call's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, cast

from attrs import frozen

from equos_async import _validate
from equos_async._marker import marker_of
from equos_async._shown import shown
from equos_async.errors import (
    APIStatusError,
    ConfigurationError,
    status_error_class,
)

from .codec import (
    UNUSABLE,
    Structured,
    date_of,
    decoded,
    describe_problem,
    parse_object,
    structure,
    structure_items,
)
from .words import MAX_HEAD

T = TypeVar("T")

MAX_MESSAGE: Final = 2048
"""How many characters of a server's error text are kept."""

MAX_SALVAGED: Final = 1 << 18
"""How many characters of a broken answer are searched for an id."""

# A string, ended or cut, or a sign; compiled when it is first needed.
_PART = r'"([^"\\]*(?:\\.[^"\\]*)*)("?)|[{}\[\]:,]'


@frozen(eq=False, repr=False)
class Unreadable:
    """Why the body of a 2xx answer cannot be used.

    Attributes:
        problem: What is wrong and where, by path and type; never a value.
        session_id: The id in the answer, if one could be read.
    """

    problem: str
    session_id: str | None = None


@frozen
class Page(Generic[T]):
    """A part of a list.

    Attributes:
        items: The items that could be read.
        count: The number of items that the server sent.
        total: The number of items in the whole list, as the server says; None: not said.
    """

    items: tuple[T, ...]
    count: int
    total: int | None


def decode_begun(
    cls: type[T], word: str, address: str | None = None
) -> Callable[[bytes], Structured[T] | Unreadable]:
    """The answer to an accepted start.

    Args:
        cls: The type of the answer.
        word: Its field for what was started.
        address: The path from there to the address to join, if the contract promises one.
    """
    id_of = attrgetter(f"{word}.id")
    named = None if address is None else f"{word}.{address}"
    address_of = attrgetter(named or word)

    def decode(body: bytes) -> Structured[T] | Unreadable:
        try:
            started = structure(parse_object(body), cls)
            _validate.session_id(id_of(started.value))
            if named is not None:
                _validate.text(named, address_of(started.value))
        except UNUSABLE as error:
            return Unreadable(describe_problem(error), _salvaged_id(body, word))
        return started

    return decode


def decode_value(cls: type[T]) -> Callable[[bytes], Structured[T] | Unreadable]:
    """Decode a value that is always there."""

    def decode(body: bytes) -> Structured[T] | Unreadable:
        try:
            return structure(parse_object(body), cls)
        except UNUSABLE as error:
            return Unreadable(describe_problem(error))

    return decode


def decode_details(cls: type[T]) -> Callable[[bytes], Structured[T | None] | Unreadable]:
    """Decode the details of a session or conversation; None if the server sent none.

    The server documents null for what does not exist or is not running any more (reference), and
    NestJS sends null as an empty body.
    """
    kind = cast("type[T | None]", cls)

    def decode(body: bytes) -> Structured[T | None] | Unreadable:
        try:
            if body[:1] != b"{" and decoded(body).strip() in {"", "null"}:
                return Structured(None)
            return structure(parse_object(body), kind)
        except UNUSABLE as error:
            return Unreadable(describe_problem(error))

    return decode


def decode_page(cls: type[T], name: str) -> Callable[[bytes], Structured[Page[T]] | Unreadable]:
    """Decode a part of a list (SDK); items without a usable id are left out.

    Args:
        cls: The type of the items, which have an ``id``.
        name: The field that holds them.
    """

    def decode(body: bytes) -> Structured[Page[T]] | Unreadable:
        try:
            found = parse_object(body)
        except UNUSABLE as error:
            return Unreadable(describe_problem(error))
        values = found.get(name)
        if not isinstance(values, list):
            return Unreadable(f"invalid type, expected a list @ $.{name}")
        unreadable: list[str] = []
        values, path = cast("list[object]", values), f"$.{name}[]"
        items = structure_items(values, cls, path, unreadable)
        usable = tuple(one for one in items if _is_id(getattr(one, "id", None)))
        if len(usable) < len(items):
            unreadable.append(f"{path}.id")
        total = found.get("total")
        if type(total) is not int or total < 0:
            unreadable.extend(["$.total"] if total is not None else [])
            total = None
        page = Page(usable, len(values), total)
        return Structured(page, tuple(dict.fromkeys(unreadable)))

    return decode


@frozen
class Looked:
    """What a search reads from a part of a list: ids, markers and dates.

    Attributes:
        items: The ids of items with a marker, and their markers.
        count: The number of items that the server sent.
        total: The number of items in the whole list; None: not said.
        created: The items' creation times by the server's clock, in their order.
        is_cut: Whether the part was too large to be read; then nothing else is known.
    """

    items: tuple[tuple[str, str], ...] = ()
    count: int = 0
    total: int | None = None
    created: tuple[float, ...] = ()
    is_cut: bool = False


def decode_looked(
    name: str, variables: str, room: int
) -> Callable[[bytes], Structured[Looked] | Unreadable]:
    """Decode a part of a list for the search for lost starts.

    Args:
        name: The field that holds the items.
        variables: The items' field that may contain a marker.
        room: The number of bytes that are read of an answer.
    """

    def decode(body: bytes) -> Structured[Looked] | Unreadable:
        if len(body) >= room:
            return Structured(Looked(is_cut=True))
        try:
            found = parse_object(body)
            values = cast("list[object]", found[name])
            items = [cast("dict[str, Any]", one) for one in values if isinstance(one, dict)]
        except (*UNUSABLE, KeyError, TypeError) as error:
            return Unreadable(f"no list @ $.{name} ({type(error).__name__})")
        total = found.get("total")
        created = [date_of(one.get("createdAt")) for one in items]
        marked = [(_id_in(one.get("id")), marker_of(one.get(variables))) for one in items]
        return Structured(
            Looked(
                items=tuple((one, mark) for one, mark in marked if one and mark),
                count=len(values),
                total=total if type(total) is int and total >= 0 else None,
                created=tuple(one for one in created if one is not None),
            )
        )

    return decode


def is_foreign(body: bytes, session_id: str) -> bool:
    """Whether an answer has another id than its request, and so belongs to another call."""
    quoted = session_id.encode()
    if body.startswith((b'{"id":"%b"' % quoted, b'{"id": "%b"' % quoted)):
        return False  # as servers write it: no need to parse the answer twice
    try:
        named = _text_of(parse_object(body).get("id"))
    except UNUSABLE:
        return False
    return isinstance(named, str) and named != session_id


def status_error(
    status: int, body: bytes, *, mask: Callable[[str], str], retry_after: float | None
) -> APIStatusError:
    """The exception for a refusal, with the server's text shortened and secrets masked."""
    # Masked before they are cut: half a key would not be found.
    text = shown(mask(decoded(body[: 4 * MAX_HEAD])), lines=True)[:MAX_MESSAGE]
    message = shown(" ".join(mask(_message(body)).split())) or " ".join(text.split())
    return status_error_class(status)(
        message[:MAX_MESSAGE] or "the server gave no reason",
        status=status,
        retry_after=retry_after,
        body=text,
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The server's request id, if it sent a plain one."""
    value = headers.get("X-Request-Id", "")
    return value if 0 < len(value) <= 200 and value.isascii() and value.isprintable() else None


def _message(body: bytes) -> str:
    """NestJS: ``{"statusCode", "message": string or list of strings, "error"?}``."""
    try:
        message = parse_object(body).get("message")
    except UNUSABLE:
        return ""  # a proxy's HTML, say: the body's text stands in
    if isinstance(message, list):
        parts = cast("list[object]", message)[:100]
        return "; ".join(part for part in parts if isinstance(part, str))
    return message if isinstance(message, str) else ""


def _salvaged_id(body: bytes, word: str) -> str | None:
    """The id of what was started, from an unusable answer, even a truncated one."""
    try:
        found = parse_object(body)[word]["id"]
    except (*UNUSABLE, TypeError, KeyError):
        found = _found_id(decoded(body)[:MAX_SALVAGED], [word, "id"])
    return _id_in(found)


def _is_id(value: object) -> bool:
    try:
        _validate.session_id(value)
    except ConfigurationError:
        return False
    return True


def _id_in(value: object) -> str | None:
    """A usable id, or None."""
    text = _text_of(value)
    return cast("str", text) if _is_id(text) else None


def _text_of(found: object) -> object:
    """An id that is a number as text; anything else as it is."""
    return str(found) if type(found) is int else found


def _found_id(text: str, wanted: list[str]) -> str | None:
    """The string at a path in JSON text that may be truncated."""
    path: list[str | None] = []  # the key that is being read in each open object; None: a list
    key: str | None = None
    for token in re.finditer(_PART, text):
        sign = token[0]
        if sign in "{[":
            path.append(None)
            continue
        if sign in "}]":
            del path[-1:]
        elif sign == ":" and path:
            path[-1] = key
        elif sign == "," and path:
            path[-1] = None
        elif token[1] is not None:
            if not token[2]:
                return None  # cut within this string
            if path == wanted:
                return _unescaped(token[1])
            key = token[1]
    return None


def _unescaped(text: str) -> str | None:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return None
