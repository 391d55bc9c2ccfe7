"""Tables of jobs, read from CSV, JSON Lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from personalive.batch import options, storage
from personalive.batch.csv_rows import read_rows
from personalive.errors import InputError, MediaError
from personalive.installation import install_command

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_UNSUPPORTED_ADVICE = {
    (".xlsx", ".xlsm", ".xls", ".ods", ".numbers"): "save the sheet as CSV",
    (".json",): "write one object a line, as .jsonl",
}
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table: its values by column, and its position `where` for messages."""

    where: str
    values: Mapping[str, Any]


def read_table(uri: str) -> list[TableRow]:
    """Read the rows of the table at a path or URL, without their empty cells. The suffix decides its format.

    Raises `InputError` where it cannot be read in that format, and `RemoteStorageError` where its store does not
    answer.
    """
    name = storage.file_name(uri)
    suffix = next((suffix for suffix in TABLE_SUFFIXES if name.lower().endswith(suffix)), None)
    if suffix is None:
        advice = next(
            (f": {what}" for kinds, what in _UNSUPPORTED_ADVICE.items() if name.lower().endswith(kinds)), ""
        )
        raise InputError(
            f"{uri} is not a table of jobs{advice}. Its name must end in {', '.join(TABLE_SUFFIXES)}."
        )
    data = storage.read_bytes(uri)
    if data is None:
        raise MediaError(f"{uri} cannot be read: no such file.")
    if suffix == ".parquet":
        rows = _read_parquet(data, name)
    else:
        rows = (read_rows if suffix in {".csv", ".tsv"} else _read_json_lines)(_decode(data, name), name)
    found = [
        TableRow(
            where,
            _normalize_columns(
                where, {column: value for column, value in values.items() if value not in ("", None)}
            ),
        )
        for where, values in rows
    ]
    if not found:
        raise InputError(f"{name} holds no jobs.")
    return found


def _normalize_columns(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by normalized column names. Raises `InputError` where two columns have the same."""
    named: dict[str, Any] = {}
    for given, value in values.items():
        column = options.match_column(str(given)) or given
        if column in named:
            raise InputError(f"{where}: the column {column} appears twice.")
        named[column] = value
    return named


def _decode(data: bytes, name: str) -> str:
    encoding = next(
        (encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8"
    )
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 from byte {error.start} on: save it as UTF-8.") from None
    if "\0" in text:
        raise InputError(f"{name} is not UTF-8, or not text at all: save it as UTF-8.")
    return text


def _read_json_lines(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"line {number} of {name}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is not valid JSON: {error}.") from None
        if not isinstance(values, dict):
            raise InputError(
                f'{where} must be an object, such as {{"reference": "a.jpg", "driving": "b.mp4"}}.'
            )
        yield where, values


def _read_parquet(data: bytes, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
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
        raise InputError(f"{name} is not a Parquet file: {str(error).splitlines()[0]}") from None
    for number, values in enumerate(rows, 1):
        yield f"row {number} of {name}", values
