"""Endpoint rows, models, the OpenAPI document and the emulator's answers agree, field by field."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

import equos_async.testing
from equos_async import models
from equos_async._api import operations
from equos_async._api.codec import Structured
from equos_async.testing import EquosEmulator
from equos_async.testing.api import ROUTES
from tests.emulator.support import CONVERSATIONS, Caller

DOCUMENT = json.loads(
    (Path(equos_async.testing.__file__).parent / "openapi.json").read_text(encoding="utf-8")
)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
MODELS = {
    name: one
    for name, one in vars(models).items()
    if isinstance(one, type) and attrs.has(one) and one.__module__ == models.__name__
}


def camel(name: str) -> str:
    """Wire names are the camelCase of Python's, spelled here once more on purpose."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def of_model(hint: Any) -> tuple[set[str], bool]:
    """The JSON types of an annotation, and whether it may be None; no types: any."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [one for one in options if one is not types.NoneType]
    optional = len(kinds) < len(options) or hint is Any
    return {kind for one in kinds for kind in of_class(one)}, optional


def of_class(one: Any) -> set[str]:
    """The JSON type of a class; none: any."""
    if one is Any:
        return set()
    if (origin := typing.get_origin(one)) in {Mapping, tuple}:
        return {"object"} if origin is Mapping else {"array"}
    if attrs.has(one):
        return {one.__name__}
    known = {str: "string", bool: "boolean", float: "number", datetime: "date-time"}
    return {known[one]}


def of_schema(schema: dict[str, Any]) -> set[str]:
    """The JSON types that a schema allows; a reference counts as its name."""
    if "anyOf" in schema:
        return {kind for one in schema["anyOf"] for kind in of_schema(one)}
    if "$ref" in schema:
        return {schema["$ref"].rpartition("/")[2]}
    kinds = {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    return {schema.get("format", "string") if kind == "string" else kind for kind in kinds}


ANSWERS = {
    "EquosSession",
    "EquosAvatar",
    "EquosAgent",
    "EquosConversation",
    "EquosCharacter",
    "EquosConversationUtterance",
    "EquosTimelineEntry",
    "HealthResponse",
}
"""Of these everything but an id may be missing."""

WITHOUT_MODEL = {
    "Error",  # exceptions
    "ListEquosSessionsResponse",  # pages are read, and what is on them is handed out
    "ListEquosConversationsResponse",
}
"""Schemas of the document that the client has no model of."""


def test_each_schema_has_a_model_and_each_model_a_schema() -> None:
    """The document and the models have the same types, except those that are listed."""
    assert set(MODELS) == set(SCHEMAS) - WITHOUT_MODEL
    assert set(SCHEMAS) > WITHOUT_MODEL


@pytest.mark.parametrize("name", MODELS)
def test_fields(name: str) -> None:
    """Same fields, same types; what must be there must be so in the document, too.

    The client reads answers more loosely than the document promises, and requests as it says.
    """
    hints = typing.get_type_hints(MODELS[name])
    properties, required = SCHEMAS[name]["properties"], set(SCHEMAS[name]["required"])
    assert {camel(field) for field in hints} == set(properties)
    for field, hint in hints.items():
        in_model, optional = of_model(hint)
        in_schema = of_schema(properties[camel(field)])
        assert ("null" in in_schema) == (camel(field) not in required), field
        assert optional or camel(field) in required, field
        assert name in ANSWERS or optional == (camel(field) not in required), field
        assert not in_model or in_model == in_schema - {"null"}, field


SECURITY: dict[operations.Credential, Any] = {
    operations.Credential.CLIENT_KEY: [{"clientAuth": []}],
    operations.Credential.SERVER_KEY: DOCUMENT["security"],
    operations.Credential.NONE: [],
}


@pytest.mark.parametrize(
    ("row", "operation_id", "status", "body", "result"),
    [
        (
            operations.START_SESSION,
            "sessionPassesControllerStartV3",
            "201",
            "CreateSessionPassRequest",
            {"CreateEquosSessionResponse"},
        ),
        (
            operations.STOP_SESSION,
            "sessionPassesControllerStopV3",
            "200",
            "",
            {"EquosSession", "null"},
        ),
        (
            operations.STOP_SESSION_BY_SERVER,
            "sessionsControllerStopV3",
            "200",
            "",
            {"EquosSession", "null"},
        ),
        (
            operations.GET_SESSION,
            "sessionsControllerGetV3",
            "200",
            None,
            {"EquosSession", "null"},
        ),
        (
            operations.LIST_SESSIONS,
            "sessionsControllerListV3",
            "200",
            None,
            {"ListEquosSessionsResponse"},
        ),
        (
            operations.START_CONVERSATION,
            "conversationsControllerStartV3",
            "201",
            "CreateEquosConversationRequest",
            {"CreateEquosConversationResponse"},
        ),
        (
            operations.STOP_CONVERSATION,
            "conversationsControllerStopV3",
            "201",
            "",
            {"EquosConversation", "null"},
        ),
        (
            operations.GET_CONVERSATION,
            "conversationsControllerGetV3",
            "200",
            None,
            {"EquosConversation", "null"},
        ),
        (
            operations.LIST_CONVERSATIONS,
            "conversationsControllerListV3",
            "200",
            None,
            {"ListEquosConversationsResponse"},
        ),
        (operations.PING, "healthControllerCheckV3", "200", None, {"HealthResponse"}),
    ],
)
def test_rows(
    row: operations.Operation[Any],
    operation_id: str,
    status: str,
    body: str | None,
    result: set[str],
) -> None:
    """Method, path, key, body and result of each row are the document's."""
    operation = DOCUMENT["paths"][f"/v3{row.path}"][row.method.lower()]
    assert operation["operationId"] == operation_id
    assert operation.get("security", DOCUMENT["security"]) == SECURITY[row.credential]
    assert ("requestBody" in operation) == (row.encode is not None) == (body is not None)
    if body is not None:
        sent = operation["requestBody"]["content"]["application/json"]["schema"]
        assert sent.get("$ref", "").rpartition("/")[2] == body
    answer = operation["responses"][status]["content"]["application/json"]["schema"]
    assert of_schema(answer) == result
    assert (row.decode(b"null") == Structured(None)) == ("null" in result)


def test_there_are_no_other_operations() -> None:
    """A row for each operation of the document."""
    documented = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    rows = {
        (one.method, f"/v3{one.path}")
        for one in vars(operations).values()
        if isinstance(one, operations.Operation)
    }
    assert rows == documented


def test_the_emulator_has_the_operations_of_the_document() -> None:
    """A route of the emulator for each operation, with the key that the document names."""
    schemes: dict[str | None, Any] = {"client_key": [{"clientAuth": []}], "api_key": None, None: []}
    routes = {
        (route.method, route.path.replace("{version:v1|v3}", "v3")): schemes[route.key]
        for route in ROUTES
    }
    documented = {
        (method.upper(), path): operation.get("security")
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    assert routes == documented
    assert DOCUMENT["security"] == [{"serverAuth": []}]


def keys(name: str, value: dict[str, Any]) -> dict[str, set[str]]:
    """The keys of an answer and of the objects in it, by their types' names."""
    found = {name: set(value)}
    for field, schema in SCHEMAS[name]["properties"].items():
        is_list = "items" in schema
        parts: list[Any] = value.get(field, []) if is_list else [value.get(field)]
        for kind in of_schema(schema["items"] if is_list else schema) & set(SCHEMAS):
            for part in filter(None, parts):
                for inner, seen in keys(kind, part).items():
                    found[inner] = found.get(inner, set()) | seen
    return found


async def test_the_emulator_sends_every_field(caller: Caller) -> None:
    """Each field of the document is sent, except those that an answer cannot have."""
    started = (await caller.start()).json
    ended = (await caller.stop(started["session"]["id"])).json
    seen = keys("CreateEquosSessionResponse", started) | keys("EquosSession", ended)
    seen["CreateEquosSessionResponse"].add("remoteAgentAccessToken")
    assert {name: set(SCHEMAS[name]["properties"]) for name in seen} == seen


async def test_so_it_does_of_conversations(caller: Caller, emulator: EquosEmulator) -> None:
    """A participant joins and speaks first; only the answer to a start has the character."""
    started = (await caller.converse()).json
    conversation_id = started["conversation"]["id"]
    emulator.join(conversation_id)
    emulator.say(conversation_id, "Hello")
    page = (await caller.send("GET", CONVERSATIONS)).json
    stop = f"{CONVERSATIONS}/{conversation_id}/stop"
    ended = (await caller.send("POST", stop, json={})).json
    seen = (
        keys("CreateEquosConversationResponse", started)
        | keys("ListEquosConversationsResponse", page)
        | keys("EquosConversation", ended)
        | keys("HealthResponse", (await caller.send("GET", "/v3/health")).json)
    )
    seen["EquosConversation"].add("character")
    assert {name: set(SCHEMAS[name]["properties"]) for name in seen} == seen
