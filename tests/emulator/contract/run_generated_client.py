"""A client that a stock generator makes of the document starts and stops a session.

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


def main() -> int:
    """Generate, start, stop; 0 where all went well."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "generated")
        sys.path.insert(0, folder)
        with EquosEmulator(client_key=KEY) as emulator:
            talk(emulator)
    print("the generated client started and stopped a session")
    return 0


def generate(target: Path) -> None:
    """Make the client; a warning of the generator counts as a failure."""
    program = Path(sys.executable).parent / "openapi-python-client"
    settings = target.with_suffix(".json")
    settings.write_text('{"post_hooks": []}', encoding="utf-8")  # nobody reads it: no formatter
    options = [f"--path={DOCUMENT}", f"--output-path={target}", f"--config={settings}"]
    options += ["--meta=none"]
    subprocess.run([program, "generate", *options, "--fail-on-warning"], check=True)


def talk(emulator: EquosEmulator) -> None:
    """Start and stop a session through the generated functions."""
    made = importlib.import_module("generated")
    calls = "generated.api.session_passes.session_passes_controller_"
    start: Any = importlib.import_module(calls + "start_v3")
    stop: Any = importlib.import_module(calls + "stop_v3")
    models: Any = importlib.import_module("generated.models")
    request = models.CreateSessionPassRequest(
        name="generated",
        max_duration=60,
        avatar=models.EquosResourceReference(id="av_1"),
        agent=models.EquosResourceReference(id="ag_1"),
        consumer_identity=models.EquosParticipantIdentity(identity="user-7", name="Ada"),
    )
    stranger = made.AuthenticatedClient(base_url=emulator.endpoint, token="another")
    with made.AuthenticatedClient(base_url=emulator.endpoint, token=KEY) as client, stranger:
        started = start.sync(client=client, body=request)
        check(isinstance(started, models.CreateEquosSessionResponse), started)
        check(list(emulator.live_sessions) == [started.session.id], emulator.live_sessions)
        ended = stop.sync(id=started.session.id, client=client, body={})
        check(isinstance(ended, models.EquosSession) and ended.status == "ended", ended)
        check(emulator.live_sessions == {}, emulator.live_sessions)
        refused = start.sync(client=stranger, body=request)
        check(isinstance(refused, models.Error) and refused.status_code == 401, refused)


def check(holds: bool, told: object) -> None:
    """Say what was seen where something does not hold."""
    if not holds:
        raise SystemExit(f"not as it should be: {told!r}")


if __name__ == "__main__":
    sys.exit(main())
