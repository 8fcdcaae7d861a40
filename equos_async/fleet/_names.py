"""The names of workers: which worker has one, and whether its process is dead."""

from __future__ import annotations

import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any, Final

from equos_async import _validate
from equos_async.clock import Clock
from equos_async.errors import ConfigurationError
from equos_async.ledger.protocol import NamedLedger, Namesake

from ._engine import Engine

_INSTANCE: Final = "#"
"""Separates a worker's name in its id from a random word, which is new for each process."""

PROC: Final = Path("/proc")
"""Where Linux describes its processes; other systems do not describe enough."""
_OVER: Final = {"Z", "X", "x"}
"""The states of a process that has ended but is still listed."""


def checked(name: str) -> str:
    """Check a worker's name, and return it as a plain string.

    Raises:
        ConfigurationError: It is not a valid name.
    """
    found = _validate.line("worker", name)
    if found.startswith("."):
        raise ConfigurationError("worker must not begin with '.'")
    return found


def new_id(name: str | None) -> str:
    """Make the id of a worker, in the process that it is for, not before a fork."""
    if name is None:
        return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    return f"{name}{_INSTANCE}{secrets.token_hex(4)}"


def name_of(worker: str) -> str:
    """The name of a worker, as users know it, from its id."""
    return worker.rpartition(_INSTANCE)[0] or worker


async def take(
    ledger: NamedLedger, engine: Engine, *, name: str, worker: str, lease: float, clock: Clock
) -> str | None:
    """Take a name; returns the id of its previous worker if that one is proved to be dead.

    If the death of its process cannot be proved, its heartbeats are watched: without one for its
    lease, which is the time of three heartbeats, it has stalled. Its rows are then claimed as those
    of any stalled worker.

    Raises:
        ConfigurationError: A living worker has the name.
        LedgerError: The engine failed.
    """
    process = own_process()
    dead: str | None = None
    watched: Namesake | None = None
    while True:
        step = ledger.enlist(worker, name=name, process=process, lease=lease, instead_of=dead)
        holder = await engine.ask(step)
        if holder is None:
            return dead
        if is_dead(holder.process):
            dead = holder.worker
            continue
        if watched is None or watched.worker != holder.worker:
            watched = holder
        elif holder.until > watched.until:
            raise ConfigurationError(
                f"worker name {name!r} is taken: its worker {holder.worker} is alive; "
                "give each process a name of its own, and let the old one end first"
            )
        await clock.sleep(min(1.0, lease / 6))


def own_process(proc: Path = PROC) -> str:
    """The identity of this process among all processes that can be seen from it."""
    pid = os.getpid()
    return json.dumps({**_place(proc), "pid": pid, "started": _stat(proc, pid).get("started")})


def is_dead(process: str, proc: Path = PROC) -> bool:
    """Whether a process is proved to be dead; never true for another machine or container.

    Args:
        process: Its identity, by :func:`own_process`.
        proc: The folder in which the system describes its processes.
    """
    try:
        told = dict(json.loads(process))
        pid = int(told["pid"])
        is_seen = None not in told.values() and told.items() >= _place(proc).items() and pid > 0
    except (ValueError, TypeError, KeyError):
        return False  # written by another release
    if not is_seen:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # no right to signal it: it exists
    stat = _stat(proc, pid)
    return bool(stat) and (stat["started"] != told["started"] or stat["state"] in _OVER)


def _place(proc: Path) -> dict[str, Any]:
    """The scope of process ids: usually one boot of one kernel.

    The host's name is not enough, because a new container may have the same one. None if the system
    does not say; then no death can be proved.
    """
    try:
        return {
            "host": socket.gethostname(),
            "boot": (proc / "sys/kernel/random/boot_id").read_text().strip(),
            "namespace": str((proc / "self/ns/pid").readlink()),
        }
    except OSError:
        return {"host": socket.gethostname(), "boot": None, "namespace": None}


def _stat(proc: Path, pid: int) -> dict[str, str]:
    """The state of a process and its start time; nothing if the system does not say."""
    try:
        # The fields after the name, which may contain anything: proc(5), 3 and 22.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return {"state": fields[0], "started": fields[19]}
    except (OSError, IndexError):
        return {}
