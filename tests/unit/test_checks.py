"""Arguments: wrong ones are refused with the field's name, before any I/O."""

from __future__ import annotations

from typing import Any

import pytest

from equos_async import ConfigurationError, _validate


@pytest.mark.parametrize(
    "value",
    [
        "3f6c9f0e-6c0e-4b8b-9a54-0a1f5d0f7b11",
        "a/b",
        "a b",
        "ä",
        "%",
        "...",
        "%2e%2e%2e",
        "x" * 256,
        "?#&",
    ],
)
def test_session_ids_that_can_be_a_path_segment(value: str) -> None:
    """Whatever can be percent-encoded into one segment is taken as it is."""
    assert _validate.session_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        b"id",
        "",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252e",
        "x" * 257,
        "a\nb",
        "a\x00b",
        "a\x7f",
        "a\x85b",
        "\ud800",
    ],
)
def test_session_ids_that_would_change_the_path(value: Any) -> None:
    """Dots in any encoding, control characters, lone surrogates and endless ids are refused."""
    with pytest.raises(ConfigurationError, match="^session_id "):
        _validate.session_id(value)


@pytest.mark.parametrize(
    "value", [None, "", 7, "pk_1 pk_2", "pk_1\t", "pk_1\n", "\r\npk_1: y", "pk_ü", "pk_1\x7f"]
)
def test_keys_that_no_header_can_carry(value: Any) -> None:
    """A bad key is refused, and not quoted."""
    with pytest.raises(ConfigurationError, match="^client_key must") as caught:
        _validate.key("client_key", value)
    assert "pk_" not in str(caught.value)


def test_a_key_hides_itself() -> None:
    """It is the same string, with a repr that shows nothing."""
    key = _validate.key("client_key", "pk_1")
    assert key == "pk_1"
    assert repr(key) == "'***'"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://api.equos.ai", "https://api.equos.ai"),
        ("https://api.equos.ai/", "https://api.equos.ai"),
        ("https://gateway.example.test/equos/", "https://gateway.example.test/equos"),
        ("HTTPS://API.EQUOS.AI:8443", "HTTPS://API.EQUOS.AI:8443"),
        ("http://127.0.0.1:3001", "http://127.0.0.1:3001"),
        ("http://[::1]:3001", "http://[::1]:3001"),
        ("http://localhost", "http://localhost"),
        ("http://equos.localhost", "http://equos.localhost"),
    ],
)
def test_endpoints(value: str, expected: str) -> None:
    """Secure ones, with a path or not, and plain ones on loopback."""
    assert _validate.endpoint(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "api.equos.ai",
        "ftp://api.equos.ai",
        "https://",
        "https:///v3",
        "https://user@api.equos.ai",
        "https://user:password@api.equos.ai",
        "https://@api.equos.ai",
        "https://api.equos.ai?",
        "https://api.equos.ai?x=1",
        "https://api.equos.ai#",
        "https://api.equos.ai#x",
        "https://api.equos.ai\\evil",
        "https://api.equos.ai/a/../b",
        "https://api.equos.ai/%2e%2e",
        "https://api.equos.ai:port",
        "https://api.equos.ai:99999",
        "https://api.equos.ai:0",
        "https://api equos.ai",
        "https://api.equos.ai\n",
        " https://api.equos.ai",
        "https://[::1",
        "https://ex<ample.test",
        "http://api.equos.ai",
        "http://10.0.0.1",
        "http://localhost.evil.test",
        "http://127.0.0.1.evil.test",
    ],
)
def test_endpoints_that_are_refused(value: Any) -> None:
    """No userinfo, query, fragment or white space, no way up, and no key on an open wire."""
    with pytest.raises(ConfigurationError, match="^endpoint "):
        _validate.endpoint(value)


def test_an_open_wire_on_request() -> None:
    """With ``allow_insecure_http`` the key may be sent in clear text."""
    assert _validate.endpoint("http://10.0.0.1", allow_insecure_http=True) == "http://10.0.0.1"


@pytest.mark.parametrize("value", ["v1", "v3", "2026-01"])
def test_versions(value: str) -> None:
    """One path segment."""
    assert _validate.api_version(value) == value


@pytest.mark.parametrize("value", ["", "v3/", "..", "v 3", 3, "%2e"])
def test_versions_that_are_refused(value: Any) -> None:
    """Nothing but one path segment."""
    with pytest.raises(ConfigurationError, match="^api_version "):
        _validate.api_version(value)


def test_instances() -> None:
    """A value of the wrong class is named with what it should be."""
    assert _validate.instance("retry", 1, int) == 1
    with pytest.raises(ConfigurationError, match="^retry must be of type str, not int$"):
        _validate.instance("retry", 1, str)
