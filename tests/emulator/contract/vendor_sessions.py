"""With ``equos`` 1.2.7, which has sessions: ``ENDPOINT CLIENT_KEY API_KEY``.

No package of the vendor's has session passes with a key alone, so that start is written here.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from importlib import import_module
from typing import Any

BODY = {
    "name": "vendor's",
    "client": "tenant-42",
    "maxDuration": 60,
    "avatar": {"id": "av_1"},
    "agent": {"id": "ag_1"},
    "templateVars": {"city": "Paris"},
    "consumerIdentity": {"identity": "user-7", "name": "Ada"},
}


def main(endpoint: str, client_key: str, api_key: str) -> None:
    """Start, then list, get and stop in each version of the path."""
    # Imported by name: no other environment has it.
    equos: Any = import_module("equos")
    for version in ("v1", "v3"):
        client = equos.Equos(api_key, equos.EquosOptions(version=version, endpoint=endpoint))
        started = start(f"{endpoint}/{version}/session-passes", client_key)
        told = import_module("equos.models.session_models").CreateEquosSessionResponse
        session = told.model_validate(started).session
        page = client.sessions.list(client="tenant-42")
        check(session.id in {one.id for one in page.sessions}, page)
        found = client.sessions.get(id=session.id)
        check(found.status == "starting" and found.avatar.name == "Ada", found)
        ended = client.sessions.stop(id=session.id)
        check(ended.status == "ended" and ended.endedAt is not None, ended)


def start(url: str, key: str) -> Any:
    """Start with a session pass."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(BODY).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def check(holds: bool, told: object) -> None:
    """Raise an error with the observed values if a condition is false."""
    if not holds:
        raise SystemExit(f"not as it should be: {told!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
