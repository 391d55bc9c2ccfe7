from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.telemetry import logs

CHATTY = ("uvicorn", "uvicorn.error", "aiortc", "aioice", "asyncio", "PIL", "httpx", "httpcore", "matplotlib")


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)


def test_an_event_is_one_line_of_text() -> None:
    out = io.StringIO()
    logs.configure_logging("text", "info", out)
    logs.event("session_opened", session="s1", pipeline="preview", note="two words", nothing=None, ms=1.5)
    at, _, told = out.getvalue().partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    assert told == 'info session_opened session=s1 pipeline=preview note="two words" ms=1.5\n'


def test_an_event_is_one_object_of_json() -> None:
    out = io.StringIO()
    logs.configure_logging("json", "info", out)
    logs.event("session_ended", level=logging.WARNING, session="s1", frames=3)
    line = json.loads(out.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "event": "session_ended", "session": "s1", "frames": 3}


@given(st.text())
def test_a_strangers_words_stay_within_their_line(text: str) -> None:
    for form in ("text", "json"):
        out = io.StringIO()
        logs.configure_logging("json" if form == "json" else "text", "info", out)
        logs.event("request", path=text)
        line = out.getvalue()
        assert len(line.splitlines()) == 1
        if form == "json":
            assert json.loads(line)["path"] == text
        else:
            line.encode()
            found = line.rstrip("\n").partition("path=")[2]
            assert (json.loads(found) if found.startswith('"') else found) == text


def test_other_loggers_come_in_the_same_form() -> None:
    out = io.StringIO()
    logs.configure_logging("json", "info", out)
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").error("it %s", "fails")
    logging.getLogger("elsewhere").info("said")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", UserWarning, stacklevel=1)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["logger"], line["event"]) for line in lines] == [
        ("uvicorn.error", "log"),
        ("elsewhere", "log"),
        ("py.warnings", "log"),
    ]
    assert lines[0]["message"] == "it fails"


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_levels(level: str, lines: int) -> None:
    out = io.StringIO()
    logs.configure_logging("text", level, out)
    logging.getLogger("personalive.server").debug("a")
    logs.event("b")
    logging.getLogger("aioice").warning("c")
    assert len(out.getvalue().splitlines()) == lines


def fail() -> None:
    raise ValueError("first\nsecond\x1b[31m")


def test_tracebacks_are_kept_and_set_in() -> None:
    text, told = io.StringIO(), io.StringIO()
    for form, out in (("text", text), ("json", told)):
        logs.configure_logging("json" if form == "json" else "text", "info", out)
        try:
            fail()
        except ValueError:
            logging.getLogger("personalive").exception("broke down")
    first, *rest = text.getvalue().splitlines()
    assert 'message="broke down"' in first
    assert all(line.startswith("    | ") for line in rest)
    assert "\x1b" not in text.getvalue()
    (line,) = told.getvalue().splitlines()
    assert "ValueError: first\nsecond" in json.loads(line)["traceback"]
