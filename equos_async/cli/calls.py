"""``start`` and ``stop`` from the command line."""

from __future__ import annotations

import argparse
import json
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Final

import attrs

from equos_async._api.operations import CONVERSATION, SESSION, Resource, resource_of
from equos_async._inside import begin, end
from equos_async._shown import shown
from equos_async.client import EquosClient
from equos_async.errors import ConfigurationError
from equos_async.models import (
    CreateEquosConversationRequest,
    CreateSessionPassRequest,
    EquosParticipantIdentity,
)
from equos_async.settings import Settle, Timeouts

from .output import tell

MAX_DURATION = 600.0
"""Seconds after which a session ends by itself without ``--max-duration``."""

MAX_DEPTH: Final = 50
"""Levels of an answer that are printed; a deeper one would exceed the recursion limit."""

TOKENS = ("consumer_access_token", "remote_agent_access_token")


def seconds(text: str) -> float:
    """A number of seconds, as a type of arguments."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}") from None


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of all commands that call the API."""
    add = parser.add_argument
    add(
        "--endpoint",
        metavar="URL",
        help="base URL of the API; default EQUOS_ENDPOINT, else https://api.equos.ai",
    )
    add("--api-version", default="v3", metavar="VERSION", help="default %(default)s")
    add(
        "--deadline",
        type=seconds,
        metavar="SECONDS",
        help="for the whole call; default 60",
    )
    add("--trust-env", action="store_true", help="use the proxy of HTTP_PROXY or HTTPS_PROXY")


def client_of(args: argparse.Namespace, timeouts: Timeouts = Timeouts()) -> EquosClient:
    """The client that these arguments describe."""
    return EquosClient(
        endpoint=args.endpoint,
        api_version=args.api_version,
        settle=Settle() if args.deadline is None else Settle(look_for=args.deadline),
        timeouts=timeouts,
        trust_env=args.trust_env,
    )


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``start``."""
    add_common_arguments(parser)
    add = parser.add_argument
    add("--avatar", metavar="ID", help="an existing avatar, for a session")
    add("--agent", metavar="ID", help="an existing agent, for a session")
    add("--character", metavar="ID", help="an existing character: starts a conversation")
    add("--identity", required=True, metavar="TEXT", help="LiveKit identity of the end user")
    add("--identity-name", default="", metavar="TEXT", help="display name of the end user")
    add(
        "--name",
        default="command line",
        metavar="TEXT",
        help="name of the session or conversation; default '%(default)s'",
    )
    add("--client", metavar="TEXT", help="your own identifier of the customer")
    add(
        "--max-duration",
        type=seconds,
        metavar="SECONDS",
        help=f"the server ends it by itself after this time; default {MAX_DURATION:g}",
    )
    add("--context", metavar="TEXT", help="additional context for the agent or character")
    add(
        "--template-var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of the prompt; can be repeated",
    )
    add("--show-token", action="store_true", help="print the access tokens, too")
    add("--json", action="store_true", help="print the whole answer as JSON")


def add_stop_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``stop``."""
    add_common_arguments(parser)
    parser.add_argument(
        "session_id", metavar="ID", nargs="?", help="id of the session or conversation"
    )
    parser.add_argument(
        "--conversation", action="store_true", help="stop a conversation, not a session"
    )


async def start(args: argparse.Namespace) -> int:
    """Start a session or a conversation, and print it."""
    duration = MAX_DURATION if args.max_duration is None else args.max_duration
    request = _request(args, duration)
    resource = resource_of(request)
    async with client_of(args) as client, AsyncExitStack() as unless_printed:
        begun = await begin(client, resource, request, deadline=args.deadline)
        unless_printed.push_async_callback(end, client, resource, resource.id_of(begun))
        started = _plain(begun)
        if not args.show_token:
            started = {name: value for name, value in started.items() if name not in TOKENS}
        _print(_json(started) if args.json else _words(resource, started))
        unless_printed.pop_all()
    if args.max_duration is None:
        tell(f"no --max-duration: the {resource.word} ends after {duration:g} s")
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
    args: argparse.Namespace, duration: float
) -> CreateSessionPassRequest | CreateEquosConversationRequest:
    """The request that the options describe."""
    person = EquosParticipantIdentity(args.identity, args.identity_name)
    variables = _pairs(args.template_var)
    if args.character is None and args.avatar and args.agent:
        return CreateSessionPassRequest(
            name=args.name,
            avatar=args.avatar,
            agent=args.agent,
            consumer_identity=person,
            client=args.client,
            max_duration=duration,
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
        max_seconds=duration,
        prompt_ctx=args.context,
        prompt_template_vars=variables,
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


def _words(resource: Resource[Any, Any, Any], started: dict[str, Any]) -> str:
    """The answer to a start for people: id, server and, with ``--show-token``, tokens."""
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
    """A model as plain values for JSON; what is nested too deeply is left out."""
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
