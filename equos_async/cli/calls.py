"""``start`` and ``stop`` from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from typing import Any, Final

import attrs

from equos_async._api.operations import CONVERSATION, SESSION, Resource, resource_of
from equos_async._shown import shown
from equos_async.client import EquosClient, begin, end
from equos_async.errors import ConfigurationError
from equos_async.models import (
    CreateEquosConversationRequest,
    CreateSessionPassRequest,
    EquosParticipantIdentity,
)

MAX_DURATION = 600.0
"""Seconds after which a session ends by itself, where nobody said otherwise."""

MAX_DEPTH: Final = 50
"""Levels of an answer that are printed: a server may nest more than a printer can follow."""

TOKENS = ("consumer_access_token", "remote_agent_access_token")


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What all commands take that call the API."""
    parser.add_argument("--endpoint", help="base URL; default EQUOS_ENDPOINT, else production")
    parser.add_argument(
        "--api-version", default="v3", help="version in the path; default %(default)s"
    )
    parser.add_argument("--deadline", type=float, help="seconds for the whole call")
    parser.add_argument(
        "--trust-env", action="store_true", help="use the proxy that the environment names"
    )


def client_of(args: argparse.Namespace) -> EquosClient:
    """The client that these arguments describe."""
    return EquosClient(
        endpoint=args.endpoint, api_version=args.api_version, trust_env=args.trust_env
    )


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``start``."""
    add_common_arguments(parser)
    for option, meaning in (
        ("--avatar", "id of an existing avatar, for a session"),
        ("--agent", "id of an existing agent, for a session"),
        ("--character", "id of an existing character, for a conversation instead"),
    ):
        parser.add_argument(option, help=meaning)
    parser.add_argument("--identity", required=True, help="identity of the end user")
    parser.add_argument(
        "--name", default="command line", help="name of the session or conversation"
    )
    parser.add_argument("--identity-name", default="", help="display name of the end user")
    parser.add_argument("--client", help="your own identifier")
    parser.add_argument(
        "--max-duration",
        type=float,
        help=f"seconds after which it ends by itself; default {MAX_DURATION:g}",
    )
    parser.add_argument("--context", help="more context for the agent or character")
    parser.add_argument(
        "--template-var", action="append", default=[], metavar="NAME=VALUE", help="repeatable"
    )
    parser.add_argument("--show-token", action="store_true", help="print the access tokens too")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")


def add_stop_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``stop``."""
    add_common_arguments(parser)
    parser.add_argument("session_id", help="id of the session or conversation")
    parser.add_argument(
        "--conversation", action="store_true", help="stop a conversation, not a session"
    )
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")


async def start(args: argparse.Namespace) -> int:
    """Start a session or a conversation, and print it."""
    seconds = MAX_DURATION if args.max_duration is None else args.max_duration
    request = _request(args, seconds)
    resource = resource_of(request)
    if args.max_duration is None:
        print(f"no --max-duration: the {resource.word} ends after {seconds:g} s", file=sys.stderr)
    async with client_of(args) as client:
        begun = await begin(client, resource, request, deadline=args.deadline)
        try:
            # Within the client's block: until it is printed nobody else knows of it.
            started = _plain(begun)
            if not args.show_token:
                started = {name: value for name, value in started.items() if name not in TOKENS}
            _print(_json(started) if args.json else _words(resource, started))
        except BaseException:
            await end(client, resource, resource.id_of(begun))
            raise
    return 0


async def stop(args: argparse.Namespace) -> int:
    """Stop a session or a conversation, and print what the server says of it."""
    resource: Resource[Any, Any, Any] = CONVERSATION if args.conversation else SESSION
    async with client_of(args) as client:
        ended = await end(client, resource, args.session_id, deadline=args.deadline)
    if args.json:
        _print(_json(None if ended is None else _plain(ended)))
    else:
        what = "was not running" if ended is None else "is stopped"
        _print(f"{resource.word} {shown(args.session_id)} {what}")
    return 0


def _request(
    args: argparse.Namespace, seconds: float
) -> CreateSessionPassRequest | CreateEquosConversationRequest:
    """What to start, by what the options name."""
    person = EquosParticipantIdentity(args.identity, args.identity_name)
    variables = _pairs(args.template_var)
    if args.character is None and args.avatar and args.agent:
        return CreateSessionPassRequest(
            name=args.name,
            avatar=args.avatar,
            agent=args.agent,
            consumer_identity=person,
            client=args.client,
            max_duration=seconds,
            additional_ctx=args.context,
            template_vars=variables,
        )
    if args.character is None or args.avatar or args.agent:
        raise ConfigurationError("pass either --avatar and --agent, or --character")
    return CreateEquosConversationRequest(
        name=args.name,
        character_id=args.character,
        consumer=person,
        client=args.client,
        max_seconds=seconds,
        prompt_ctx=args.context,
        prompt_template_vars=variables,
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


def _words(resource: Resource[Any, Any, Any], started: dict[str, Any]) -> str:
    """What was started, for people: its id, where to join, and the tokens that are to be seen."""
    begun = started[resource.word]
    told = {"server": begun.get("host", begun)["server_url"]}
    told |= {name: started.get(name) for name in TOKENS}
    lines = [f"{name}: {value}" for name, value in told.items() if value is not None]
    return "\n".join(map(shown, (f"{resource.word} {begun['id']} is started", *lines)))


def _print(text: str) -> None:
    print(text, flush=True)


def _pairs(options: list[str]) -> dict[str, str] | None:
    parts = [option.partition("=") for option in options]
    if not all(name and sign for name, sign, _ in parts):
        raise ConfigurationError("--template-var must be NAME=VALUE")
    return {name: value for name, _, value in parts} or None


def _plain(value: Any, depth: int = 0) -> Any:
    """A model as JSON can hold it; what is nested deeper than anybody reads is left out."""
    if isinstance(value, datetime):
        return value.isoformat()
    kind: Any = value.__class__
    if kind not in {dict, list} and not attrs.has(kind):
        return value
    if depth == MAX_DEPTH:
        return "\u2026"
    if kind is list:
        return [_plain(one, depth + 1) for one in value]
    entries = value if kind is dict else attrs.asdict(value, recurse=False)
    return {name: _plain(one, depth + 1) for name, one in entries.items()}
