"""Log one line per event, for people or for programs, and other loggers' records in the same form.

2026-03-01T12:00:00.123Z info session_opened session=Zk3… pipeline=preview
{"time": "2026-03-01T12:00:00.123Z", "level": "info", "event": "session_opened", "session": "Zk3…", …}
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

_log = logging.getLogger("personalive")

_UNQUOTED = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_QUIET_LOGGERS = (
    "uvicorn",
    "uvicorn.error",
    "aiortc",
    "aioice",
    "asyncio",
    "PIL",
    "httpx",
    "httpcore",
    "matplotlib",
)
_FIELDS_ATTRIBUTE = "personalive_fields"

LogFormat = Literal["text", "json"]


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event. Events of a session name it in the field `session`; fields that are None are left out."""
    told = {key: value for key, value in fields.items() if value is not None}
    _log.log(level, name, extra={_FIELDS_ATTRIBUTE: told})


def configure_logging(log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Write all log records from `level` up to the text stream `stream`, by default stderr, one line each.

    `level` is debug, info, warning or error. Libraries are logged from warning up, unless it is debug.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(number)
    for name in _QUIET_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


def _split_record(record: logging.LogRecord) -> tuple[str, Mapping[str, object]]:
    fields = getattr(record, _FIELDS_ATTRIBUTE, None)
    if fields is not None:
        return record.getMessage(), fields
    return "log", {"logger": record.name, "message": record.getMessage()}


def _format_time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class _TextFormatter(logging.Formatter):
    """A formatter that writes fields as name=value, and a traceback on indented lines below."""

    def format(self, record: logging.LogRecord) -> str:
        name, fields = _split_record(record)
        told = [f"{key}={_format_value(value)}" for key, value in fields.items()]
        line = " ".join([_format_time(record), record.levelname.lower(), name, *told])
        if record.exc_info and record.exc_info[0] is not None:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    | {_escape_unprintable(part)}" for part in trace.splitlines())
        return line


class _JsonFormatter(logging.Formatter):
    """A formatter that writes one JSON object per line, with any traceback in it."""

    def format(self, record: logging.LogRecord) -> str:
        name, fields = _split_record(record)
        line: dict[str, object] = {
            "time": _format_time(record),
            "level": record.levelname.lower(),
            "event": name,
        }
        line.update(fields)
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _format_value(value: object) -> str:
    """Return a field's value as text, quoted and escaped so that input of clients cannot forge fields or lines."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if _UNQUOTED.fullmatch(text) else json.dumps(text, ensure_ascii=not text.isprintable())


def _escape_unprintable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
