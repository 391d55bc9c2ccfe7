"""Fits text to the terminal: wraps it between words, and turns tables that do not fit into lists."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import TextIO

NARROW_WIDTH = 80
"""Terminal width in columns below which help is shown as a list."""
_MIN_WIDTH = 20


def terminal_width(stream: TextIO) -> int | None:
    """Return the line width of a terminal; None for files and pipes, whose readers may be programs."""
    return max(shutil.get_terminal_size().columns, _MIN_WIDTH) if stream.isatty() else None


def wrap(text: str, width: int | None, *, hanging: int = 0) -> str:
    """Wrap the lines of a text between words at `width` columns; continuation lines get `hanging` more indentation.

    A longer word, such as a path, is not broken.
    """
    if width is None:
        return text
    filled = []
    for line in text.split("\n"):
        indent = re.match(" *", line)
        assert indent is not None
        deeper = min(len(indent[0]) + hanging, width // 2)
        filled.append(
            textwrap.fill(
                line,
                width,
                subsequent_indent=" " * deeper,
                break_long_words=False,
                break_on_hyphens=False,
                drop_whitespace=True,
                replace_whitespace=False,
            )
        )
    return "\n".join(filled)


def format_definition(term: str, text: str, width: int | None, *, indent: int) -> str:
    """Format a term and its text from column `indent` on, or below the term where that leaves little room."""
    if width is not None and width - indent < 30:
        deeper = " " * (len(term) - len(term.lstrip()) + 4)
        return wrap(term.rstrip(), width, hanging=2) + (f"\n{wrap(deeper + text, width)}" if text else "")
    line = f"{term.ljust(indent - 1)} {text}".rstrip()
    return wrap(line, width, hanging=indent - (len(line) - len(line.lstrip())))


def format_table(rows: Sequence[Sequence[str]], width: int | None) -> str:
    """Format rows, the first being the header, in columns; where they do not fit, each as a list of its cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        return "\n".join(_format_row(row, widths) for row in rows)
    head, *others = rows
    lists = []
    for first, *cells in others:
        lines = [f"{head[0]} {first}"]
        lines += [f"  {name}: {cell}" for name, cell in zip(head[1:], cells, strict=True) if cell]
        lists.append(wrap("\n".join(lines), width, hanging=4))
    return "\n".join(lists)


def _format_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
