"""Shows PersonaLive's own code the standard library as it is on Windows; all other code sees what is there.

A process that is started with this folder on its path, and the names to hide in `HIDDEN_NAMES`, begins with it,
and so do the processes that it starts.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import signal
import sys
from types import ModuleType
from typing import Any

_LACKING = {module: set(names) for module, names in json.loads(os.environ["HIDDEN_NAMES"]).items()}
_MODULES = _LACKING.pop("")
_INSTEAD: dict[str, dict[str, Any]] = {
    "sys": {"platform": "win32"},
    "os": {"name": "nt"},
}
if sys.platform != "win32":
    _INSTEAD["signal"] = {"SIGBREAK": signal.SIGUSR2}
_import = builtins.__import__


def _ours() -> bool:
    package = sys._getframe(2).f_globals.get("__package__") or ""
    return package.partition(".")[0] == "personalive"


class _AsOnWindows(ModuleType):
    def __getattribute__(self, name: str) -> Any:
        if name[0] != "_" and _ours():
            module = super().__getattribute__("__name__")
            if name in _INSTEAD.get(module, ()):
                return _INSTEAD[module][name]
            if name in _LACKING.get(module, ()):
                raise AttributeError(f"module {module!r} has no attribute {name!r} on Windows")
        return super().__getattribute__(name)


def _guarded(name: str, *args: Any, **options: Any) -> Any:
    if name.partition(".")[0] in _MODULES and _ours():
        raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
    return _import(name, *args, **options)


builtins.__import__ = _guarded
for _name in {*_LACKING, *_INSTEAD}:
    importlib.import_module(_name).__class__ = _AsOnWindows
