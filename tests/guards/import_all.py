"""Imports every module of the installed package that its extras have no part in.

Run by ``nox -s build`` as ``python -W error``, where only the declared dependencies are.
"""

import importlib
import pkgutil

import equos_async

NEED_MORE = {
    "equos_async.ledger.redis_link": "redis",
    "equos_async.ledger.redis_ways": "redis",
    "equos_async.otel": "opentelemetry",
    "equos_async.testing.callsites": "pytest",
    "equos_async.testing.grouped_ledger_contract": "pytest",
    "equos_async.testing.turns_contract": "pytest",
    "equos_async.testing.keyed_ledger_contract": "pytest",
    "equos_async.testing.ledger_contract": "pytest",
    "equos_async.testing.named_ledger_contract": "pytest",
    "equos_async.testing.settling_contract": "pytest",
    "equos_async.testing.pytest_plugin": "pytest",
}
"""What only an extra or a test run brings, by the module that needs it."""

for module in pkgutil.walk_packages(equos_async.__path__, "equos_async."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if NEED_MORE.get(module.name) != missing:
            raise SystemExit(f"{module.name} needs {missing}, which is not declared") from error
    else:
        if module.name in NEED_MORE:
            raise SystemExit(f"{NEED_MORE[module.name]} is there: this environment is not clean")
for name in equos_async.__all__:
    getattr(equos_async, name)
print("imported from", equos_async.__path__[0])
