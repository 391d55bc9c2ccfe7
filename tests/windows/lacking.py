"""The parts of the standard library that other systems have and Windows lacks, as its types in mypy say."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mypy

_STUBS = Path(mypy.__file__).parent / "typeshed" / "stdlib"
MODULES = ("os", "signal", "socket", "select", "asyncio", "time", "errno", "mmap", "shutil", "subprocess")
"""Those looked at whose contents differ."""
POSIX = ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty", "uvloop")
"""Modules that Windows does without as a whole."""


@cache
def lacking() -> dict[str, frozenset[str]]:
    """The names that each of `MODULES` lacks on Windows; under "" the modules that it lacks."""
    found = {
        module: (_names(module, "linux") | _names(module, "darwin")) - _names(module, "win32")
        for module in MODULES
    }
    return {"": frozenset(POSIX), **{module: frozenset(names) for module, names in found.items()}}


def _names(module: str, platform: str) -> set[str]:
    folder = _STUBS / module
    stub = folder / "__init__.pyi" if folder.is_dir() else folder.with_suffix(".pyi")
    return _defined(ast.parse(stub.read_text(encoding="utf-8")).body, module, platform)


def _defined(body: list[ast.stmt], module: str, platform: str) -> set[str]:
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.If):
            taken = statement.body if _holds(statement.test, platform) else statement.orelse
            names |= _defined(taken, module, platform)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.ImportFrom):
            names |= _imported(statement, module, platform)
        elif isinstance(statement, ast.Import):
            names |= {alias.asname or alias.name for alias in statement.names}
    if module == "signal" and "Signals" in names:  # whose members the module has as its own
        members = next((one for one in body if isinstance(one, ast.ClassDef) and one.name == "Signals"), None)
        names |= _defined(members.body, "", platform) if members else set()
    return names


def _imported(statement: ast.ImportFrom, module: str, platform: str) -> set[str]:
    if statement.names[0].name != "*":
        return {alias.asname or alias.name for alias in statement.names}
    if module == "asyncio" and statement.level:
        return _names(f"asyncio/{statement.module}", platform)
    return set()


def _holds(test: ast.expr, platform: str) -> bool:
    known = {"sys": SimpleNamespace(platform=platform, version_info=sys.version_info), "TYPE_CHECKING": False}
    return bool(eval(compile(ast.Expression(test), "<stub>", "eval"), known))
