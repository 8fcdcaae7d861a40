"""The public interface as text: ``python -m tests.guards.signatures`` writes it.

``signatures.txt`` holds it, so that a change of the public surface is seen where it is reviewed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import attrs

PATH = Path(__file__).with_name("signatures.txt")
MODULES = ("equos_async", "equos_async.testing", "equos_async.otel")

SPECIAL = {
    "__aenter__",
    "__aexit__",
    "__call__",
    "__enter__",
    "__exit__",
    "__getitem__",
    "__iter__",
    "__len__",
}
"""The special methods that a user's own syntax calls."""


HANDED_OUT = {"LiveSession"}
"""What users get and never make."""


def surface() -> str:
    """All of it, module by module, each in the order of its ``__all__``."""
    return "\n".join(line for module in MODULES for line in of_module(module)) + "\n"


def of_module(name: str) -> Iterator[str]:
    """A module's public names."""
    module = import_module(name)
    public = cast("list[str]", vars(module)["__all__"])
    yield f"# {name}"
    for one in public:
        yield ""
        value = getattr(module, one)
        if inspect.isclass(value):
            yield from of_class(value)
        elif callable(value):
            yield of_function(one, value)
        else:
            yield f"{one}: {of_value(value)}"
    yield ""


def of_value(value: object) -> str:
    """A constant: what it offers, but no number that changes with each release."""
    if isinstance(value, Mapping):
        return f"mapping of {', '.join(map(str, cast('Mapping[object, object]', value)))}"
    return type(value).__name__ if isinstance(value, str) else type_of(value)


def of_class(cls: type) -> Iterator[str]:
    """A class: its bases, how it is made, its attributes and methods in their order."""
    bases = [base.__name__ for base in cls.__bases__ if base is not object]
    yield f"class {cls.__name__}({', '.join(bases)})" if bases else f"class {cls.__name__}"
    if Protocol not in cls.__bases__ and cls.__name__ not in HANDED_OUT:
        yield from (f"    {line}" for line in making(cls))
    yield from (f"    {line}" for line in of_members(cls))


def making(cls: type) -> Iterator[str]:
    """The arguments of a class, one on each line."""
    starred = False
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "(*)"
        yield f"({of_parameter(parameter)})"


def of_members(cls: type) -> Iterator[str]:
    """The attributes and methods that a class defines itself, or has of a base that is private."""
    for base in cls.__bases__:
        if base.__module__.partition(".")[0] == "equos_async" and not is_public(base):
            yield from of_members(base)
    made = {name: type_of(p.annotation) for name, p in inspect.signature(cls).parameters.items()}
    for name, value in inspect.get_annotations(cls).items():
        if not name.startswith("_") and made.get(name) != type_of(value):
            constant = f" = {vars(cls)[name]!r}" if isinstance(vars(cls).get(name), str) else ""
            yield f"{name}: {type_of(value)}{constant}"
    for name, value in vars(cls).items():
        if name.startswith("_") and name not in SPECIAL:
            continue
        if isinstance(value, property):
            yield f"{name}: {type_of(inspect.signature(cast('Any', value.fget)).return_annotation)}"
        elif isinstance(value, classmethod | staticmethod):
            kind = "classmethod" if isinstance(value, classmethod) else "staticmethod"
            yield f"{kind} {of_function(name, getattr(cls, name))}"
        elif inspect.isfunction(value):
            yield of_function(name, value)


def is_public(cls: type) -> bool:
    """Whether a class is shown on its own."""
    return any(cls.__name__ in vars(import_module(module))["__all__"] for module in MODULES)


def of_function(name: str, function: Any) -> str:
    """A function in one line, with its kind."""
    inner = inspect.unwrap(function)
    if inspect.iscoroutinefunction(inner):
        use = "async "
    elif inspect.isasyncgenfunction(inner):
        use = "async for " if inner is function else "async with "
    else:
        use = ""
    found = inspect.signature(function)
    parts: list[str] = []
    for parameter in found.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        if parameter.name != "self":
            parts.append(of_parameter(parameter))
    return f"{use}{name}({', '.join(parts)}) -> {type_of(found.return_annotation)}"


def of_parameter(parameter: inspect.Parameter) -> str:
    """A parameter: its name, type and default."""
    stars: dict[object, str] = {
        inspect.Parameter.VAR_POSITIONAL: "*",
        inspect.Parameter.VAR_KEYWORD: "**",
    }
    text = f"{stars.get(parameter.kind, '')}{parameter.name}: {type_of(parameter.annotation)}"
    if parameter.default is inspect.Parameter.empty:
        return text
    made_each_time = parameter.default is attrs.NOTHING
    return f"{text} = {'...' if made_each_time else repr(parameter.default)}"


def type_of(value: object) -> str:
    """A type as the source has it."""
    if value is inspect.Signature.empty:
        return "?"
    return value if isinstance(value, str) else inspect.formatannotation(value)


if __name__ == "__main__":
    PATH.write_text(surface(), encoding="utf-8")
