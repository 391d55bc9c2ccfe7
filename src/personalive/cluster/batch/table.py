"""Tables of jobs: rows of text and values out of CSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from personalive.cluster.batch import storage
from personalive.errors import InputError, MediaError
from personalive.installation import install_command

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: what it gives by column, and `where` it stands, for messages."""

    where: str
    values: Mapping[str, Any]


def read_table(place: str) -> list[Row]:
    """The rows of a table at a path or URL, without their empty cells; of which kind goes by its suffix.

    Raises `InputError` where it cannot be read as what it is called, and `StorageError` where its store cannot
    be asked.
    """
    name = storage.name_of(place)
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"{place} is no table of jobs: its name must end in {', '.join(SUFFIXES)}.")
    data = storage.read(place)
    if data is None:
        raise MediaError(f"{place} cannot be read: no such file.")
    if suffix == ".parquet":
        rows = _parquet(data, name)
    else:
        rows = (_csv if suffix == ".csv" else _json_lines)(_text(data, name), name)
    found = [
        Row(where, {column: value for column, value in values.items() if value not in ("", None)})
        for where, values in rows
    ]
    if not found:
        raise InputError(f"{name} holds no jobs.")
    return found


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not in UTF-8, from byte {error.start}: save it as UTF-8.") from None


def _csv(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # What spreadsheets of many countries write has semicolons; a comma in a header's name is unheard of.
    header = text.partition("\n")[0]
    separator = ";" if ";" in header and "," not in header else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"line {reader.line_num} of {name}"
            if len(cells) > len(columns):
                raise InputError(
                    f"{where} has {len(cells)} cells, the header {len(columns)}: quote what holds a separator."
                )
            yield where, {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {name} is no CSV: {error}.") from None


def _json_lines(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"line {number} of {name}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is no JSON: {error}.") from None
        if not isinstance(values, dict):
            raise InputError(
                f'{where} must be an object, such as {{"reference": "a.jpg", "driving": "b.mp4"}}.'
            )
        yield where, values


def _parquet(data: bytes, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        command = install_command("cluster")
        raise InputError(
            f"{name} needs pyarrow, which is not installed. Save the table as CSV, or run: {command}"
        ) from None
    try:
        rows = parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except pyarrow.ArrowException as error:
        raise InputError(f"{name} is no Parquet file: {str(error).splitlines()[0]}") from None
    for number, values in enumerate(rows, 1):
        yield f"row {number} of {name}", values
