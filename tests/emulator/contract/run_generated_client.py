"""A client that a stock generator makes of the document calls every operation.

``python -m tests.emulator.contract.run_generated_client``, in an environment with
openapi-python-client.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import equos_async.testing
from equos_async.testing import EquosEmulator

DOCUMENT = Path(equos_async.testing.__file__).parent / "openapi.json"
KEY = "pk_contract"
API_KEY = "sk_contract"


def main() -> int:
    """Generate the client, then call it; returns 0 on success."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "generated")
        sys.path.insert(0, folder)
        with EquosEmulator(client_key=KEY, api_key=API_KEY, allow_live=False) as emulator:
            of_sessions(emulator)
            of_conversations(emulator)
    print("the generated client started, found and stopped sessions and conversations")
    return 0


def generate(target: Path) -> None:
    """Make the client; a warning of the generator counts as a failure."""
    program = Path(sys.executable).parent / "openapi-python-client"
    settings = target.with_suffix(".json")
    settings.write_text('{"post_hooks": []}', encoding="utf-8")  # nobody reads it: no formatter
    options = [f"--path={DOCUMENT}", f"--output-path={target}", f"--config={settings}"]
    options += ["--meta=none"]
    subprocess.run([program, "generate", *options, "--fail-on-warning"], check=True)


def operation(tag: str, name: str) -> Any:
    """The generated module of an operation."""
    return importlib.import_module(f"generated.api.{tag}.{name}")


def callers(emulator: EquosEmulator) -> tuple[Any, Any, Any]:
    """With the client key, with the server key, and with an unknown key."""
    made = importlib.import_module("generated")
    url = emulator.endpoint
    client = made.AuthenticatedClient(base_url=url, token=KEY)
    # The generator knows one kind of key for all operations; this is how it says another header.
    server = made.AuthenticatedClient(
        base_url=url, token=API_KEY, prefix="", auth_header_name="x-api-key"
    )
    return client, server, made.AuthenticatedClient(base_url=url, token="another")


def of_sessions(emulator: EquosEmulator) -> None:
    """Start, find and stop sessions, with either key."""
    models: Any = importlib.import_module("generated.models")
    client, server, stranger = callers(emulator)
    passes, found = "session_passes_controller_", "sessions_controller_"
    start = operation("session_passes", f"{passes}start_v3")
    request = models.CreateSessionPassRequest(
        name="generated",
        max_duration=60,
        avatar=models.EquosResourceReference(id="av_1"),
        agent=models.EquosResourceReference(id="ag_1"),
        consumer_identity=models.EquosParticipantIdentity(identity="user-7", name="Ada"),
    )
    first = start.sync(client=client, body=request)
    check(isinstance(first, models.CreateEquosSessionResponse), first)
    second = start.sync(client=client, body=request)
    check(len(emulator.live_sessions) == 2, emulator.live_sessions)
    page = operation("sessions", f"{found}list_v3").sync(client=server, take=50)
    check({one.id for one in page.sessions} == set(emulator.live_sessions), page)
    one = operation("sessions", f"{found}get_v3").sync(id=first.session.id, client=server)
    check(isinstance(one, models.EquosSession) and one.status == "starting", one)
    stop = operation("session_passes", f"{passes}stop_v3")
    ended = stop.sync(id=first.session.id, client=client, body={})
    check(isinstance(ended, models.EquosSession) and ended.status == "ended", ended)
    stop = operation("sessions", f"{found}stop_v3")
    ended = stop.sync(id=second.session.id, client=server, body={})
    check(isinstance(ended, models.EquosSession) and ended.status == "ended", ended)
    refused = start.sync(client=stranger, body=request)
    check(isinstance(refused, models.Error) and refused.status_code == 401, refused)


def of_conversations(emulator: EquosEmulator) -> None:
    """Start, find and stop a conversation, and ask for the health."""
    models: Any = importlib.import_module("generated.models")
    _, server, stranger = callers(emulator)
    calls = "conversations_controller_"
    start = operation("conversations", f"{calls}start_v3")
    request = models.CreateEquosConversationRequest(
        name="generated",
        character_id="ch_1",
        max_seconds=60,
        consumer=models.EquosParticipantIdentity(identity="user-7", name="Ada"),
    )
    started = start.sync(client=server, body=request)
    check(isinstance(started, models.CreateEquosConversationResponse), started)
    emulator.say(started.conversation.id, "Hello")
    page = operation("conversations", f"{calls}list_v3").sync(client=server)
    check([one.id for one in page.conversations] == [started.conversation.id], page)
    one = operation("conversations", f"{calls}get_v3").sync(
        id=started.conversation.id, client=server
    )
    check([said.content for said in one.transcript] == ["Hello"], one)
    stop = operation("conversations", f"{calls}stop_v3")
    ended = stop.sync(id=started.conversation.id, client=server, body={})
    check(isinstance(ended, models.EquosConversation) and ended.status == "ended", ended)
    refused = start.sync(client=stranger, body=request)
    check(isinstance(refused, models.Error) and refused.status_code == 401, refused)
    health = operation("health", "health_controller_check_v3").sync(client=stranger)
    check(isinstance(health, models.HealthResponse), health)


def check(holds: bool, told: object) -> None:
    """Raise an error with the observed values if a condition is false."""
    if not holds:
        raise SystemExit(f"not as it should be: {told!r}")


if __name__ == "__main__":
    sys.exit(main())
