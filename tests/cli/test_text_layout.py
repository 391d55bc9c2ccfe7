from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from personalive.cli.app import app
from personalive.cli.text_layout import format_definition, format_table, terminal_width, wrap

WORDS = st.lists(st.text("abc/.-=ä", min_size=1, max_size=30), min_size=1, max_size=12)
WIDTHS = st.integers(20, 120)


def fits(line: str, width: int) -> bool:
    """Whether a line is no longer than it may be, or is one word that is."""
    return len(line) <= width or len(line.split()) == 1


@given(WORDS, WIDTHS, st.integers(0, 6), st.integers(0, 6))
def test_lines_are_broken_between_words_only(words: list[str], width: int, indent: int, hanging: int) -> None:
    text = " " * indent + " ".join(words)
    filled = wrap(text, width, hanging=hanging)
    assert filled.split() == words
    assert all(fits(line, width) for line in filled.split("\n"))
    assert wrap(text, None, hanging=hanging) == text


@given(st.lists(st.lists(WORDS.map(" ".join), min_size=4, max_size=4), min_size=2, max_size=5), WIDTHS)
def test_tables_that_do_not_fit_become_lists(rows: list[list[str]], width: int) -> None:
    wide = format_table(rows, None).split("\n")
    shown = format_table(rows, width)
    if max(map(len, wide)) <= width:
        assert shown.split("\n") == wide
        return
    assert all(fits(line, width) for line in shown.split("\n"))
    for row in rows[1:]:
        assert set(" ".join(row).split()) <= set(shown.split())


@given(WORDS.map(" ".join), WORDS.map(" ".join), WIDTHS)
def test_what_is_described_stays_whole(head: str, text: str, width: int) -> None:
    shown = format_definition(head, text, width, indent=30)
    assert shown.split() == [*head.split(), *text.split()]
    assert all(fits(line, width) for line in shown.split("\n"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_files_and_pipes_have_lines_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert terminal_width(io.StringIO()) is None
    assert terminal_width(Terminal()) == 50
    monkeypatch.setenv("COLUMNS", "3")
    assert terminal_width(Terminal()) == 20


def commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            yield from (name for name in parameter.opts if name.startswith("-"))
    for inner in getattr(command, "commands", {}).values():
        yield from options(inner)


HELP = """
import sys
from personalive.cli import app
for arguments in eval(sys.argv[1]):
    sys.argv = ["personalive", *arguments, "--help"]
    try:
        app.main()
    except SystemExit as end:
        assert not end.code
"""


@pytest.mark.parametrize("width", [30, 60, 80])
def test_help_breaks_no_word(width: int) -> None:
    known = list(commands(typer.main.get_command(app)))
    assert len(known) > 10
    done = subprocess.run(
        [sys.executable, "-c", HELP, repr(known)],
        env={**os.environ, "COLUMNS": str(width), "PYTHONIOENCODING": "utf-8"},
        check=True, capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert all(fits(line, width) for line in done.stdout.split("\n"))
    assert re.search(r"\w…", done.stdout) is None  # cut off, other than what follows a list
    assert "Usage" in done.stdout
    words = set(re.split(r"[\s│,/]+", done.stdout))
    assert set(options(typer.main.get_command(app))) <= words
