"""Stands in for discord.py: `7 Ada /talk` on standard input is a slash command of person 7."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast

Command = Callable[["Interaction"], Awaitable[None]]
OnError = Callable[["Interaction", "AppCommandError"], Awaitable[None]]


class Intents:
    """What a bot is told of."""

    @classmethod
    def default(cls) -> Self:
        return cls()


class Interaction:
    """A slash command of one person; what they are answered is printed."""

    guild_id = 42

    def __init__(self, user_id: int, name: str) -> None:
        self.user = SimpleNamespace(id=user_id, display_name=name)
        self.response = self
        self.followup = self
        self._told: bool | None = None
        """None before the first response, and then whether only this person sees it."""

    async def defer(self, *, ephemeral: bool) -> None:
        assert self._told is None, "responded twice"
        self._told = ephemeral

    async def send(self, text: str, *, ephemeral: bool) -> None:
        assert self._told is ephemeral, "the first response decides who sees it"
        print(f"to {self.user.display_name}{' only' * ephemeral}: {text}", flush=True)

    async def send_message(self, text: str, *, ephemeral: bool) -> None:
        await self.defer(ephemeral=ephemeral)
        await self.send(text, ephemeral=ephemeral)


class Client:
    """A bot, which is connected until there is no more input."""

    call: Callable[[str, Interaction], Awaitable[None]]

    def __init__(self, *, intents: Intents) -> None:
        assert isinstance(intents, Intents)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def setup_hook(self) -> None:
        """For the bot to override."""

    async def close(self) -> None:
        print("disconnected", flush=True)

    async def connect(self) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: protocol, sys.stdin)
        print("connected", flush=True)
        with closing(transport):
            async with asyncio.TaskGroup() as group:
                async for line in reader:
                    number, name, command = line.decode().split()
                    group.create_task(self._answer(command, Interaction(int(number), name)))

    async def _answer(self, command: str, interaction: Interaction) -> None:
        try:
            await self.call(command, interaction)
        except AppCommandError as error:
            print(f"logged: {error}", flush=True)

    def run(self, token: str) -> None:
        assert token

        async def runner() -> None:
            async with self:
                await self.setup_hook()
                await self.connect()

        try:
            asyncio.run(runner())
        except KeyboardInterrupt:
            return


class AppCommandError(Exception):
    """A command failed."""


class CommandInvokeError(AppCommandError):
    """A command raised something else."""

    def __init__(self, original: Exception) -> None:
        super().__init__(repr(original))
        self.original = original


class CommandTree:
    """The commands of a bot, by their functions' names."""

    def __init__(self, client: Client) -> None:
        client.call = self._call
        self._commands: dict[str, Command] = {}
        self._on_error: OnError | None = None

    def command(self, *, description: str) -> Callable[[Command], Command]:
        assert len(description) <= 100, "Discord refuses it"

        def add(command: Command) -> Command:
            name: str = cast("Any", command).__name__
            self._commands[f"/{name}"] = command
            return command

        return add

    def error(self, on_error: OnError) -> OnError:
        self._on_error = on_error
        return on_error

    async def sync(self) -> None:
        print("commands:", *self._commands, flush=True)

    async def _call(self, command: str, interaction: Interaction) -> None:
        try:
            await self._commands[command](interaction)
        except Exception as error:
            assert self._on_error is not None
            await self._on_error(interaction, CommandInvokeError(error))


app_commands = SimpleNamespace(
    AppCommandError=AppCommandError,
    CommandInvokeError=CommandInvokeError,
    CommandTree=CommandTree,
)
