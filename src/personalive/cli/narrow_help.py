"""Help on narrow terminals: a word-wrapped list instead of boxes and columns."""

from __future__ import annotations

import os
import sys
from typing import Any

from personalive.cli.text_layout import NARROW_WIDTH, terminal_width, wrap


def fit_to_terminal(command: Any) -> None:
    """Make a command and its subcommands show their help as a list where the terminal is too narrow for columns."""
    asked = os.environ.get("COLUMNS", "")  # the usual layout respects it in pipes as well
    width = int(asked) if asked.isdecimal() else terminal_width(sys.stdout)
    if width:
        _fit_command(command, width)


def _fit_command(command: Any, width: int) -> None:
    if width < NARROW_WIDTH or _longest_option(command) > width // 4:
        _use_list_layout(command, width)
    for inner in getattr(command, "commands", {}).values():
        _fit_command(inner, width)


def _longest_option(command: Any) -> int:
    """Return the length of the longest option: the column of options may take only a share of the width."""
    return max((len(name) for parameter in command.params for name in parameter.opts), default=0)


def _use_list_layout(command: Any, width: int) -> None:
    command.rich_markup_mode = None
    context: type[Any] = command.context_class
    formatter = _make_formatter(context.formatter_class, width)
    command.context_class = type("NarrowContext", (context,), {"formatter_class": formatter})


def _make_formatter(base: type[Any], columns_: int) -> type[Any]:
    class Formatter(base):  # type: ignore[misc]
        """Writes help of a fixed number of columns."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "width": columns_})

        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            self._write(f"{prefix or 'Usage: '}{prog} {args}", hanging=4)

        def write_text(self, text: str) -> None:
            for index, paragraph in enumerate(text.split("\n\n")):
                self.write("\n" if index else "")
                self._write(" ".join(paragraph.replace("\b", "").split()))

        def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
            del col_max, col_spacing
            for term, text in rows:
                self._write(term, hanging=2)
                if text:
                    with self.indentation():
                        self._write(" ".join(text.split()))

        def _write(self, text: str, hanging: int = 0) -> None:
            indent = " " * self.current_indent
            self.write(f"{wrap(indent + text, columns_, hanging=hanging)}\n")

    return Formatter
