from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.windows.lacking import POSIX, lacking

ROOT = Path(__file__).parents[2]
FILES = [
    path for folder in ("src", "benchmarks", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))
]


def asks_for_the_system(node: ast.AST) -> bool:
    """Whether it says what is done on which system."""
    said = ast.unparse(node)
    return any(words in said for words in ("sys.platform", "hasattr(os,", "hasattr(signal,"))


def used(node: ast.AST, guarded: bool = False) -> Iterator[tuple[int, str]]:
    """Where something is used that Windows lacks, except where the system was asked for."""
    if isinstance(node, ast.FunctionDef | ast.If | ast.IfExp | ast.BoolOp):
        guarded = guarded or asks_for_the_system(node)
    if isinstance(node, ast.Import) and not guarded:
        yield from (
            (node.lineno, alias.name) for alias in node.names if alias.name.partition(".")[0] in POSIX
        )
    elif isinstance(node, ast.ImportFrom) and not guarded:
        if (node.module or "").partition(".")[0] in POSIX:
            yield node.lineno, str(node.module)
        names = lacking().get(node.module or "-", frozenset())
        yield from ((node.lineno, alias.name) for alias in node.names if alias.name in names)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and not guarded:
        names = lacking().get(node.value.id or "-", frozenset())
        yield from ((node.lineno, f"{node.value.id}.{name}") for name in names & {node.attr})
    for child in ast.iter_child_nodes(node):
        yield from used(child, guarded)


@pytest.mark.slow
def test_nothing_that_windows_lacks_is_used_unasked() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in FILES
        for line, name in used(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "os",
            {
                "fork",
                "getuid",
                "geteuid",
                "sched_getaffinity",
                "O_CLOEXEC",
                "killpg",
                "statvfs",
                "sysconf",
                "pread",
            },
        ),
        ("signal", {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGSTOP", "pause"}),
        ("socket", {"AF_UNIX"}),
        ("select", {"poll", "epoll", "kqueue"}),
    ],
)
def test_what_windows_lacks_is_known(module: str, names: set[str]) -> None:
    assert names <= lacking()[module]
    assert not {"path", "replace", "getpid", "SIGINT", "SIGTERM", "AF_INET", "select"} & lacking()[module]


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from resource import getrusage",
        "import os\ndef user():\n    return os.getuid()",
        "import signal\nstop = signal.SIGSTOP",
    ],
)
def test_a_use_is_found(source: str) -> None:
    assert list(used(ast.parse(source)))
