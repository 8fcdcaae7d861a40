"""Convert JSON bytes to models and back, for any operation."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    NoReturn,
    TypeVar,
    cast,
    get_args,
    get_origin,
)

import attrs

if TYPE_CHECKING:
    from cattrs import Converter
from equos_async.errors import ConfigurationError
from equos_async.models import EquosAgent, EquosAvatar, EquosCharacter

from .shared import SharedReader

T = TypeVar("T")

_DESCRIPTIONS: Final = frozenset({EquosAgent, EquosAvatar, EquosCharacter})

UNUSABLE = (ValueError, RecursionError, ExceptionGroup)  # a group is what cattrs raises
USELESS = (*UNUSABLE, TypeError, AttributeError)  # and what its hooks raise by themselves


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse an answer that must be a JSON object.

    Raises:
        ValueError: It is not JSON, or JSON of another kind.
        RecursionError: It is nested too deeply.
    """
    text = body.decode(_encoding(body)).strip(_WHITESPACE)
    value, end = _DECODER.raw_decode(text)
    if not isinstance(value, dict) or end != len(text):
        raise ValueError
    return cast("dict[str, Any]", value)


def decoded(body: bytes) -> str:
    """The text of a body, whatever it holds."""
    return body.decode(_encoding(body), "replace")


def _encoding(body: bytes) -> str:
    """The encoding of JSON text: UTF-8, unless a byte order mark or zero bytes show another."""
    return "utf-8" if body[:1] == b"{" and body[1:2] != b"\0" else json.detect_encoding(body)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` and `json.dumps` with an argument make one for each call.
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_WHITESPACE: Final = " \t\n\r"  # RFC 8259, 2
ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
NOT_JSON: Final = (TypeError, ValueError, RecursionError)
"""What the encoder raises for a value that JSON cannot hold."""


@attrs.frozen
class Structured(Generic[T]):
    """A model made from JSON.

    Attributes:
        value: The model.
        unreadable: The paths of the fields that held a value of another type; they are None.
    """

    value: T
    unreadable: tuple[str, ...] = ()


def structure(found: dict[str, Any], cls: type[T]) -> Structured[T]:
    """Make a model from an answer; only fields without a default must be right.

    Raises:
        ValueError: One of those is missing, or of another type; also as an exception group.
    """
    try:
        return Structured(converter().structure(found, cls))
    except UNUSABLE as error:
        strict = error
    # Rare: only now is it worth the time to look at each field by itself.
    unreadable: list[str] = []
    value = _structure_fields(found, cls, "$", unreadable)
    if value is None:
        raise strict
    return Structured(value, tuple(unreadable))


def structure_items(
    found: list[object], cls: type[T], path: str, unreadable: list[str]
) -> tuple[T, ...]:
    """Make models from a list in an answer; elements that cannot be read are left out."""
    items: list[T] = []
    for value in found:
        try:
            item: T | None = converter().structure(value, cls)
        except USELESS:
            item = _structure_fields(value, cls, path, unreadable)
        if item is None:
            unreadable.append(path)
        else:
            items.append(item)
    return tuple(items)


def _structure_fields(found: object, cls: type[T], path: str, unreadable: list[str]) -> T | None:
    """Make a model field by field; None if a required field cannot be read."""
    if not isinstance(found, dict):
        return None
    fields: dict[str, Any] = {}
    for one in attrs.fields(attrs.resolve_types(cast("Any", cls))):
        name = camel(one.name)
        if name not in found:
            continue
        value = cast("dict[str, Any]", found)[name]
        here = f"{path}.{name}"
        try:
            fields[one.name] = converter().structure(value, one.type)
        except USELESS:
            partial = _structure_partly(value, one.type, here, unreadable)
            if partial is not None:
                fields[one.name] = partial
            elif one.default is attrs.NOTHING:
                return None
            elif value is not None:
                unreadable.append(here)
    try:
        return cls(**fields)
    except TypeError:  # an essential field is missing
        return None


def _structure_partly(value: object, hint: Any, path: str, unreadable: list[str]) -> Any:
    """The readable part of a field's value; None if nothing can be read."""
    kind = _inner(hint) if _is_optional(hint) else hint
    if attrs.has(kind):
        return _structure_fields(value, kind, path, unreadable)
    if _is_list(kind) and isinstance(value, list):
        found = cast("list[object]", value)
        return structure_items(found, get_args(kind)[0], f"{path}[]", unreadable)
    return None


def describe_problem(error: Exception) -> str:
    """What is wrong and where, by path and type; never a value."""
    if isinstance(error, ExceptionGroup):
        from cattrs import transform_error  # noqa: PLC0415 - as in `converter`

        return "; ".join(transform_error(cast("Exception", error))[:5])
    return str(error) if isinstance(error, ConfigurationError) else "not a JSON object"


def camel(name: str) -> str:
    """SDK: wire names are the camelCase of snake_case names, without exception."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


@cache
def converter() -> Converter:
    """The converter; made at first use, to keep imports fast."""
    from cattrs import Converter  # noqa: PLC0415 - most of what importing this package would cost
    from cattrs.gen import (  # noqa: PLC0415
        make_dict_structure_fn,
        make_dict_unstructure_fn,
        override,
    )

    converter = Converter()
    converter.register_structure_hook(str, _structure_text)
    converter.register_unstructure_hook(datetime, _unstructure_datetime)

    def wire_names(cls: type) -> dict[str, Any]:
        return {one.name: override(rename=camel(one.name)) for one in attrs.fields(cls)}

    # What cattrs has looks the inner hook up again for each value.
    @converter.register_structure_hook_factory(_is_optional)
    def optional(union: Any) -> Callable[[Any, Any], Any]:
        inner = _inner(union)
        if inner in _OR_NONE:
            return _OR_NONE[inner]
        hook = converter.get_structure_hook(inner)
        return lambda value, _: None if value is None else hook(value, inner)

    @converter.register_structure_hook_factory(_is_list)
    def elements(kind: Any) -> Callable[[Any, Any], Any]:
        hook = converter.get_structure_hook(inner := get_args(kind)[0])

        def structure_list(value: object, _: Any) -> Any:
            if not isinstance(value, list):  # a string, too, could be taken apart
                raise TypeError
            return tuple(hook(one, inner) for one in cast("list[object]", value))

        return structure_list

    @converter.register_structure_hook_factory(attrs.has)
    def structure(cls: type) -> Callable[[Any, Any], Any]:
        fields = cast(
            "Callable[[Any, Any], Any]",
            make_dict_structure_fn(cls, converter, **wire_names(cls)),
        )
        if any(one.default is attrs.NOTHING for one in attrs.fields(cls)):
            return fields

        read: Callable[[Any, Any], Any] = fields
        if cls in _DESCRIPTIONS:
            known = attrs.fields(attrs.resolve_types(cls))
            loose = {camel(one.name): one.name for one in known if one.type is Any}
            read = SharedReader(fields, loose)

        def structure_object(value: object, cls: Any) -> Any:
            if type(value) is not dict:  # a string, too, can be asked whether it holds a name
                raise TypeError
            return read(cast("dict[str, Any]", value), cls)

        return structure_object

    @converter.register_unstructure_hook_factory(attrs.has)
    def unstructure(cls: type) -> Callable[[Any], Any]:
        return make_dict_unstructure_fn(
            cls, converter, _cattrs_omit_if_default=True, **wire_names(cls)
        )

    return converter


def _is_optional(union: Any) -> bool:
    return get_origin(union) is UnionType and NoneType in get_args(union)


def _inner(union: Any) -> Any:
    (inner,) = set(get_args(union)) - {NoneType}
    return inner


def _is_list(kind: Any) -> bool:
    """Whether a type is ``tuple[X, ...]``, which is a list in JSON."""
    return get_origin(kind) is tuple


def _structure_text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _structure_text_or_none(value: object, _: object) -> str | None:
    if isinstance(value, str) or value is None:
        return value
    raise TypeError


def _structure_flag_or_none(value: object, _: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError
    return value


def _structure_number_or_none(value: object, _: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    # 1e999 is valid JSON, and infinity in Python; an int may be too large for any float.
    if not -1e300 < value < 1e300:
        raise ValueError
    return value


def _structure_datetime_or_none(value: Any, _: object) -> datetime | None:
    """SDK: RFC 3339 with milliseconds and ``Z``."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)  # a TypeError if it is no text
    except ValueError:
        moment = _rare_datetime(value.upper())
    if moment.tzinfo is None:
        raise ValueError
    return moment


_OR_NONE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    str: _structure_text_or_none,
    bool: _structure_flag_or_none,
    float: _structure_number_or_none,
    datetime: _structure_datetime_or_none,
}
"""Types that cattrs would convert, such as None to "None" or "no" to True; here they must match."""


def date_of(value: object) -> float | None:
    """A date in an answer as seconds since the epoch; None if it is not a date."""
    try:
        moment = _structure_datetime_or_none(value, None)
        return None if moment is None else moment.timestamp()
    except (*USELESS, OverflowError):
        return None


def _rare_datetime(text: str) -> datetime:
    """Parse the forms of RFC 3339 that Python does not: lower case, and leap seconds."""
    if text[16:19] != ":60":
        return datetime.fromisoformat(text)
    return datetime.fromisoformat(f"{text[:16]}:59{text[19:]}") + timedelta(seconds=1)


def _unstructure_datetime(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
