"""Terminals of any encoding get a text they can show."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.cli.terminal_encoding import tolerate_unencodable

ENCODINGS = ["ascii", "cp1252", "cp437", "cp850", "cp932", "koi8-r", "latin-1", "utf-8"]


def printed(text: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with monkeypatch.context() as replaced:
        replaced.setattr(sys, "stdout", stream)
        tolerate_unencodable()
        print(text, end="", flush=True)
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text())
def test_whatever_is_said_can_be_printed(encoding: str, text: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        printed(text, encoding, monkeypatch)


def test_what_is_lacking_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed("512×512 … “Zoë”: 3 → 4 \udcff", "ascii", monkeypatch) == '512x512 ... "Zoe": 3 -> 4 ?'
    assert printed("512×512 ─│╭", "cp437", monkeypatch) == "512x512 ─│+"
    assert printed("512×512 \udcff", "utf-8", monkeypatch) == "512×512 ?"


def test_without_a_console_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    tolerate_unencodable()


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "columns"), [("ascii", 60), ("cp437", 200)])
def test_commands_end_well(encoding: str, columns: int, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": str(columns)}
    for command in (
        ["--help"],
        ["animate", "--help"],
        ["doctor"],
        ["pipelines"],
        ["animate", "gone…", "×.mp4"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "personalive", *command],
            check=False, capture_output=True, env=environment, cwd=tmp_path, timeout=120,
        )  # fmt: skip
        assert b"Traceback" not in done.stderr, command
        assert done.returncode in (0, 1, 2), command
