"""A gateway and API for discord.py to connect to: people type slash commands and read answers."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from attrs import frozen

Json = dict[str, Any]

BOT: Json = {
    "id": "1",
    "username": "bot",
    "discriminator": "0",
    "avatar": None,
    "global_name": None,
}
GUILD = 42
CHANNEL = 43
EPHEMERAL = 64
"""The flag of a message that only one person sees."""

DISPATCH, HEARTBEAT, IDENTIFY, HELLO, ACK = 0, 1, 2, 10, 11

USE = """
import os, runpy, discord.gateway, discord.http, yarl
discord.http.Route.BASE = os.environ["DISCORD_AT"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_AT"]) / "gateway"
for name in os.environ["UNSET"].split():
    del os.environ[name]
runpy.run_path(os.environ["BOT"], run_name="__main__")
"""
"""A program that runs a bot with the real discord.py, which finds Discord at another address."""


@frozen
class Answer:
    """The answer that a person sees."""

    text: str
    is_private: bool


def _reply(value: object) -> web.Response:
    """An answer of the API; without a charset, or discord.py does not take it for JSON."""
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")


class Discord:
    """One guild of Discord, in which a bot is."""

    def __init__(self) -> None:
        self.url = ""
        self.commands: list[str] = []
        self.left = asyncio.Event()
        self._numbers = itertools.count(1000)
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._flags: dict[str, int] = {}
        self._socket = web.WebSocketResponse()

    async def type(self, person: int, name: str, command: str) -> Answer:
        """Type a command as a person, and wait for the bot's answer."""
        token = f"token-{next(self._numbers)}"
        self._waiting[token] = asyncio.get_running_loop().create_future()
        user = {**BOT, "id": str(person), "username": name.lower(), "global_name": name}
        member: Json = {
            "user": user,
            "roles": [],
            "joined_at": "2026-01-01T00:00:00+00:00",
            "permissions": "0",
            "deaf": False,
            "mute": False,
            "flags": 0,
        }
        interaction: Json = {
            "id": str(next(self._numbers)),
            "application_id": BOT["id"],
            "type": 2,
            "version": 1,
            "attachment_size_limit": 0,
            "token": token,
            "guild_id": str(GUILD),
            "channel_id": str(CHANNEL),
            "member": member,
            "data": {"id": str(next(self._numbers)), "name": command, "type": 1},
        }
        await self._dispatch("INTERACTION_CREATE", interaction)
        async with asyncio.timeout(60):
            return await self._waiting[token]

    def app(self) -> web.Application:
        """Its API and its gateway."""
        app = web.Application()
        add = app.router.add_route
        add("GET", "/users/@me", self._me)
        add("GET", "/oauth2/applications/@me", self._application)
        add("PUT", "/applications/{id}/commands", self._sync)
        add("POST", "/interactions/{id}/{token}/callback", self._respond)
        add("POST", "/webhooks/{id}/{token}", self._follow_up)
        add("GET", "/gateway", self._gateway)
        return app

    async def _me(self, _: web.Request) -> web.Response:
        return _reply(BOT)

    async def _application(self, _: web.Request) -> web.Response:
        about = {"id": BOT["id"], "name": "bot", "icon": None, "description": "", "flags": 0}
        rights = {"bot_public": True, "bot_require_code_grant": False, "verify_key": ""}
        return _reply({**about, **rights, "owner": BOT})

    async def _sync(self, request: web.Request) -> web.Response:
        wanted: list[Json] = await request.json()
        self.commands = [one["name"] for one in wanted]
        own = {"application_id": BOT["id"], "version": "1"}
        return _reply([{**one, **own, "id": str(next(self._numbers))} for one in wanted])

    async def _respond(self, request: web.Request) -> web.Response:
        """The first response to a command: it decides who sees the answer."""
        token, wanted = request.match_info["token"], await request.json()
        data: Json = wanted.get("data") or {}
        assert token not in self._flags, "responded twice"
        self._flags[token] = data.get("flags", 0)
        if "content" in data:
            self._answer(token, data["content"])
        interaction = {"id": request.match_info["id"], "type": 2}
        return _reply({"interaction": interaction})

    async def _follow_up(self, request: web.Request) -> web.Response:
        token, data = request.match_info["token"], await request.json()
        assert data.get("flags", 0) == self._flags[token], "the first response decides who sees it"
        self._answer(token, data["content"])
        lists = ("attachments", "embeds", "mentions", "mention_roles", "components")
        message: Json = {
            "id": str(next(self._numbers)),
            "channel_id": str(CHANNEL),
            "author": BOT,
            "content": data["content"],
            "timestamp": "2026-01-01T00:00:00+00:00",
            "edited_timestamp": None,
            "type": 0,
            **dict.fromkeys(("pinned", "tts", "mention_everyone"), False),
            **{name: [] for name in lists},
        }
        return _reply(message)

    def _answer(self, token: str, text: str) -> None:
        self._waiting.pop(token).set_result(Answer(text, bool(self._flags[token] & EPHEMERAL)))

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        self._socket = web.WebSocketResponse()
        await self._socket.prepare(request)
        await self._socket.send_json({"op": HELLO, "d": {"heartbeat_interval": 30_000}})
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                await self._take(message.json())
        self.left.set()
        return self._socket

    async def _take(self, payload: Json) -> None:
        if payload["op"] == HEARTBEAT:
            await self._socket.send_json({"op": ACK})
        elif payload["op"] == IDENTIFY:
            about: Json = {"user": BOT, "application": {"id": BOT["id"], "flags": 0}, "guilds": []}
            session = {"v": 10, "session_id": "s", "resume_gateway_url": f"{self.url}/gateway"}
            await self._dispatch("READY", {**about, **session})

    async def _dispatch(self, name: str, data: Json) -> None:
        number = next(self._numbers)
        await self._socket.send_json({"op": DISPATCH, "t": name, "s": number, "d": data})


@asynccontextmanager
async def discord() -> AsyncGenerator[Discord]:
    """A Discord on loopback."""
    discord = Discord()
    async with TestServer(discord.app()) as server:
        discord.url = str(server.make_url("")).rstrip("/")
        yield discord
