"""Checks of arguments: each returns the value, or raises an error that names the field.

All run before any I/O and raise :class:`~equos_async.errors.ConfigurationError`. No message quotes
a value that could be a secret.
"""

from __future__ import annotations

import ipaddress
import math
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from .errors import ConfigurationError

T = TypeVar("T")
MAX_ID_LENGTH = 256
_KEY = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VERSION = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_CONTENT = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def plain(value: T) -> T:
    """The same value; a member of an enum of strings, whose ``str()`` is its name, as a string."""
    if not isinstance(value, str) or type(value) in {str, Secret}:
        return value
    return cast("T", str.__str__(value))


def text(field: str, value: Any, *, empty: bool = False) -> str:
    """A plain string that can be encoded, and is not empty unless ``empty`` allows it."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{field} must be a string, not {type(value).__name__}")
    if not value and not empty:
        raise ConfigurationError(f"{field} must not be empty")
    if not value.isascii() and not _encodable(value):
        raise ConfigurationError(f"{field} contains a lone surrogate, which UTF-8 cannot encode")
    return value if type(value) is str else plain(value)


def line(field: str, value: Any) -> str:
    """A string without control characters, which would forge lines of a log or a terminal."""
    found = text(field, value)
    if _CONTROL.search(found):
        raise ConfigurationError(f"{field} must not contain control characters")
    return found


def number(field: str, value: Any, *, zero: bool = False) -> float:
    """A finite number above zero, or at least zero with ``zero``."""
    wanted = f"{field} must be a finite number {'of at least' if zero else 'above'} 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(f"{wanted}, not {type(value).__name__}")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        finite = False
    if not finite or value < 0 or (value == 0 and not zero):
        raise ConfigurationError(wanted)
    return value


def count(field: str, value: Any, *, zero: bool = False) -> int:
    """A whole number above zero, or at least zero with ``zero``."""
    least = 0 if zero else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{field} must be a whole number of at least {least}")
    return value


def instance(field: str, value: Any, cls: type[T]) -> T:
    """A value of a class."""
    if not isinstance(value, cls):
        raise ConfigurationError(
            f"{field} must be of type {cls.__name__}, not {type(value).__name__}"
        )
    return value


def hook(field: str, value: T | None) -> T | None:
    """A plain function or None; a coroutine function is refused, as nothing would await it."""
    if value is None:
        return None
    if not callable(value):
        raise ConfigurationError(f"{field} must be callable, not {type(value).__name__}")
    import inspect  # noqa: PLC0415 - most of what importing this package would cost

    called: Any = value
    while isinstance(called, partial):
        called = called.func
    for one in (called, type(called).__call__):
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise ConfigurationError(
                f"{field} must be a plain function, not a coroutine function: it is called, and "
                "not awaited; start a task in it for what takes time"
            )
    return value


def session_id(value: Any) -> str:
    """A session id that fits into one path segment.

    Ids that would change the path are refused (``.``, ``..`` and their percent-encoded forms: with
    ``..`` a stop would become ``PATCH /v3/stop``), and ids that a URL cannot hold.
    """
    found = line("session_id", value)
    if len(found) > MAX_ID_LENGTH:
        raise ConfigurationError(f"session_id must have at most {MAX_ID_LENGTH} characters")
    if _decoded(found) in {".", ".."}:
        raise ConfigurationError("session_id must not be '.' or '..', in any encoding")
    return found


class Secret(str):
    """A string whose repr shows nothing, for values in locals and in other objects' reprs."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Hide a string; of a member of an enum of strings, its value."""
        return super().__new__(cls, plain(value))

    def __repr__(self) -> str:
        return "'***'"


def hidden(value: T) -> T:
    """The same value; a string as one whose repr shows ``***``."""
    return cast("T", Secret(value)) if isinstance(value, str) else value


def key(field: str, value: Any) -> Secret:
    """A key that fits into a header; the message never quotes it."""
    if not isinstance(value, str) or not value:
        found = "an empty one" if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(f"{field} must be a non-empty string, not {found}")
    if not _KEY.fullmatch(value):
        raise ConfigurationError(
            f"{field} must consist of printable ASCII without spaces or line breaks"
        )
    return Secret(value)


def key_source(name: str, value: Any) -> str | Callable[[], str | Awaitable[str]]:
    """A key, or a callable that returns one."""
    if isinstance(value, str) or not callable(value):
        return key(name, value)
    return cast("Callable[[], str | Awaitable[str]]", value)


def hidden_values(value: T) -> T:
    """The same mapping, with strings whose repr shows ``***``; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    items = cast("Mapping[Any, Any]", value).items()
    return cast("T", {name: hidden(one) for name, one in items})


_OUR_HEADERS: Final = frozenset(
    {
        # What the client says itself, or what of a request the wire decides.
        *("accept", "accept-encoding", "authorization", "content-type", "user-agent", "x-api-key"),
        *("connection", "content-encoding", "content-length", "expect", "host", "keep-alive"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


def headers(value: Any) -> dict[str, str]:
    """The caller's own headers; the message never quotes a value."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"headers must be a mapping, not {type(value).__name__}")
    found: dict[str, str] = {}
    for name, content in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ConfigurationError("headers: each name must be a valid name of an HTTP header")
        if name.lower() in _OUR_HEADERS:
            raise ConfigurationError(f"headers must not name {name}: the client sets it")
        if name.lower() in {one.lower() for one in found}:
            raise ConfigurationError(f"headers must not name {name} twice")
        if not isinstance(content, str) or not _CONTENT.fullmatch(content):
            raise ConfigurationError(
                f"headers: the value of {name} must be a string of printable ASCII"
            )
        found[plain(name)] = Secret(content)
    return found


@frozen
class Proxy:
    """A proxy.

    Attributes:
        url: Where it is, without credentials.
        authorization: The value of its ``Proxy-Authorization`` header; None: none is sent.
        secrets: The parts of it that must not be shown.
    """

    url: str
    authorization: Secret | None
    secrets: tuple[Secret, ...] = field(repr=False)


def proxy(value: Any) -> Proxy:
    """A proxy from its URL; neither the message nor a frame shows the URL."""
    found = _parsed_proxy(text("proxy", hidden(value)))
    if isinstance(found, str):
        raise ConfigurationError(f"proxy must {found}")
    return found


def _parsed_proxy(url: str) -> Proxy | str:
    """A proxy, or what is wrong with its URL."""
    wanted = "be a URL such as http://user:password@proxy.example.com:3128"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return wanted
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not _is_host(host) or not _KEY.fullmatch(url):
        return wanted
    if parts.path not in {"", "/"} or set(url) & set("?#"):
        return "have no path, query or fragment"
    where = f"[{host}]" if ":" in host else host
    bare = f"{parts.scheme}://{where}" + ("" if port is None else f":{port}")
    if parts.username is None:
        return Proxy(bare, None, ())
    user, password = unquote(parts.username), unquote(parts.password or "")
    basic = b64encode(f"{user}:{password}".encode()).decode()  # RFC 7617
    secrets = tuple(Secret(one) for one in (password, parts.password, basic) if one)
    return Proxy(bare, Secret(f"Basic {basic}"), secrets)


def endpoint(value: Any, *, allow_insecure_http: bool = False) -> str:
    """The base URL without a trailing slash.

    Plain ``http://`` is accepted for loopback hosts only, unless ``allow_insecure_http`` is set,
    because it sends the key in clear text.
    """
    url = text("endpoint", value)
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigurationError(
            "endpoint must be a URL such as https://api.equos.ai, with a port up to 65535"
        ) from None
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not _is_host(host) or not port_ok:
        raise ConfigurationError("endpoint must be a URL such as https://api.equos.ai")
    # Not the parsed parts: urlsplit drops an empty "?", "#" and stray control characters.
    if set(url) & set("@?#\\") or not _KEY.fullmatch(url):
        raise ConfigurationError("endpoint must have no userinfo, query, fragment or white space")
    if any(_decoded(segment) in {".", ".."} for segment in parts.path.split("/")):
        raise ConfigurationError("endpoint must not contain '.' or '..' in its path")
    if parts.scheme == "http" and not allow_insecure_http and not _is_loopback(host):
        raise ConfigurationError(
            "endpoint must be https:// unless its host is loopback; "
            "allow_insecure_http=True sends the key in clear text"
        )
    return url.rstrip("/")


def api_version(value: Any) -> str:
    """One path segment such as ``v3``."""
    version = text("api_version", value)
    if not _VERSION.fullmatch(version):
        raise ConfigurationError("api_version must be one path segment, such as 'v3'")
    return version


def _is_host(host: str) -> bool:
    """Whether a name could be looked up: RFC 1035 has labels of 1 to 63 characters, 253 in all."""
    if not _HOST.fullmatch(host):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        fits = all(_LABEL.fullmatch(label) for label in labels) and len(host) <= 254
        return fits and not labels[-1].isdigit()  # that would be an address, and is none
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # RFC 6761: "localhost" and names below it stand for loopback addresses.
        return host == "localhost" or host.endswith(".localhost")


def _decoded(value: str) -> str:
    """The value with its percent-encoding undone, however often it was applied."""
    while (once := unquote(value)) != value:
        value = once
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
