"""Rows of CSV tables, as spreadsheets and people write them.

Cells are separated by commas, semicolons, tabs or bars, or as a first line `sep=;` says. Comments and empty lines
are skipped. The header is optional, its names in any case. Errors name the line and the column.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from personalive.batch import options
from personalive.errors import InputError

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_REQUIRED_COLUMNS = ("reference", "driving")
_DEFAULT_COLUMNS = (*_REQUIRED_COLUMNS, "output")
_TEXT_COLUMNS = {*_DEFAULT_COLUMNS, "face", "face_box", "driver_face"}
"""Columns whose commas are none of decimal numbers: files, and places in a picture."""
_FILE_NAME = re.compile(r".+\.\w{2,5}|.*[/\\].*", re.DOTALL)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")


def read_rows(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of the table called `name`: its position for messages, and its cells by column.

    Raises `InputError` where the text is not such a table.
    """
    lines = _Lines(text)
    separator = lines.declared_delimiter or _detect_delimiter(lines.header)
    rows = _parse(lines, separator, name)
    first = next(rows, None)
    if first is None:
        return
    where, cells = first
    columns = _read_header(cells, where, separator)
    if columns is None:
        columns = list(_DEFAULT_COLUMNS[: len(cells)])
        yield where, _row(cells, columns, where, separator)
    for where, cells in rows:
        yield where, _row(cells, columns, where, separator)


class _Lines:
    """The lines of a table without comments and the `sep=` line, whose separator is `declared_delimiter`."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="").readlines()
        self._header_line = 0
        self.declared_delimiter: str | None = None
        while self._header_line < len(self._lines) and _is_blank(self._lines[self._header_line]):
            self._header_line += 1
        if self._header_line < len(self._lines) and (
            match := _SEP_LINE.fullmatch(self._lines[self._header_line].rstrip("\r\n"))
        ):
            self.declared_delimiter = match[1]
            self._header_line += 1
            while self._header_line < len(self._lines) and _is_blank(self._lines[self._header_line]):
                self._header_line += 1
        self.number = self._header_line
        """The number of the line yielded last, from 1."""

    @property
    def header(self) -> str:
        return self._lines[self._header_line] if self._header_line < len(self._lines) else ""

    def __iter__(self) -> Iterator[str]:
        for line in self._lines[self._header_line :]:
            self.number += 1
            yield line


def _is_blank(line: str) -> bool:
    return not line.strip() or line.startswith("#")


def _parse(lines: _Lines, separator: str, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows that are not empty, as cells."""
    between_rows = True

    def uncommented() -> Iterator[str]:
        nonlocal between_rows
        for line in lines:
            # Inside a quoted cell, a line that begins like a comment is none.
            if not (between_rows and line.startswith("#")):
                between_rows = False
                yield line

    reader = csv.reader(uncommented(), delimiter=separator, strict=True)
    while True:
        between_rows = True
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"line {lines.number} of {name} is not valid CSV: {error}.") from None
        if any(cell.strip() for cell in cells):
            yield f"line {lines.number} of {name}", [cell.strip() for cell in cells]


def _detect_delimiter(header: str) -> str:
    """Return the separator that yields the most column names from the first line, or else the most file names."""

    def worth(separator: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in next(csv.reader([header], delimiter=separator), [])]
        known = sum(options.match_column(cell) is not None for cell in cells)
        return known, sum(_FILE_NAME.fullmatch(cell) is not None for cell in cells) if len(cells) > 1 else 0

    return max(_DELIMITERS, key=worth)


def _read_header(cells: Sequence[str], where: str, separator: str) -> list[str] | None:
    """Return the columns that the first row names; None where the row is a job already."""
    columns = [options.match_column(cell) or cell for cell in cells]
    if (
        not set(_REQUIRED_COLUMNS) & set(columns)
        and 2 <= len(cells) <= 3
        and all(map(_FILE_NAME.fullmatch, cells))
    ):
        return None
    for index, column in enumerate(columns):
        if column and column in columns[:index]:
            raise InputError(f"{where}: the column {column} appears twice.")
    if missing := [column for column in _REQUIRED_COLUMNS if column not in columns]:
        listed = ", ".join(repr(column) for column in columns if column)
        raise InputError(
            f"{where} names no column {' or '.join(missing)}: separated by "
            f"{_describe_delimiter(separator)}, it has {listed}."
        )
    return columns


def _row(cells: Sequence[str], columns: Sequence[str], where: str, separator: str) -> dict[str, Any]:
    more = len(cells) - len(columns)
    if more > 0 and any(cells[len(columns) :]):
        raise InputError(
            f"{where} has {len(cells)} cells, the header {len(columns)}, separated by "
            f"{_describe_delimiter(separator)}: quote cells that contain a separator."
        )
    nameless = [cell for column, cell in zip(columns, cells, strict=False) if cell and not column]
    if nameless:
        raise InputError(f"{where} has {nameless[0]!r} in a column that the header does not name.")
    values = dict(zip(columns, cells, strict=False))
    if separator == ",":
        return values
    # Where commas do not separate cells, they may be decimal commas.
    return {
        column: cell.replace(",", ".")
        if column not in _TEXT_COLUMNS and _DECIMAL_COMMA.fullmatch(cell)
        else cell
        for column, cell in values.items()
    }


def _describe_delimiter(separator: str) -> str:
    return f"a {_DELIMITERS[separator]}" if separator in _DELIMITERS else repr(separator)
