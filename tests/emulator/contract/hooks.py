"""The facts about NestJS that schemathesis needs; its own checks do everything else."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import equos_async.testing

DOCUMENT = Path(equos_async.testing.__file__).parent / "openapi.json"
DECLARED = {
    path: {method.upper() for method in methods}
    for path, methods in json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"].items()
}


def after_call(context: Any, case: Any, response: Any) -> None:
    """Read the empty body of a stop or a look-up as the null that it stands for.

    The document says null, and that NestJS sends null as an empty body without a Content-Type.
    OpenAPI has no words for that; so the checks are shown the null.
    """
    if response.status_code in {200, 201} and not response.content:
        if "content-type" in response.headers:
            raise AssertionError("an empty answer must have no Content-Type")
        response.content = b"null"
        response.headers["content-type"] = ["application/json"]


def nest_knows_no_405(context: Any, response: Any, case: Any) -> None:
    """An undeclared method is 404 in NestJS; schemathesis's own check wants a 405."""
    method = response.request.method
    if method not in DECLARED[case.operation.path] | {"HEAD"}:
        path = response.request.path_url.partition("?")[0]
        if response.status_code != 404:
            raise AssertionError(f"{method} {path} must be 404, not {response.status_code}")


# Imported by name: the other environments, type checkers' too, have no schemathesis.
_schemathesis: Any = import_module("schemathesis")
_schemathesis.hook(after_call)
_schemathesis.check(nest_knows_no_405)
