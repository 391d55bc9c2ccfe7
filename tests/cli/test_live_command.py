from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from personalive.media import open_driving, read_provenance

if TYPE_CHECKING:
    from tests.cli.conftest import Call

PROGRAM = "from personalive.cli.app import main; main()"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="a terminal and signals of POSIX")


def test_what_cannot_be_used_is_one_line_and_leaves_nothing(
    personalive: Call, portrait_file: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        ([], "No portrait is given"),
        ([portrait_file, "--from", "missing.mp4", "--to", "out.mp4"], "missing.mp4"),
        ([portrait_file, "--from", "No Such Camera", "--to", "out.mp4"], "No Such Camera"),
        ([portrait_file, "--from", "ftp://x/y", "--to", "out.mp4"], "rtsp://"),
        ([portrait_file, "--from", clip, "--to", "out.avi"], "out.avi"),
        ([portrait_file, "--from", clip, "--to", "missing/out.mp4"], "missing"),
        ([portrait_file, "--from", clip, "--to", "out.mp4", "--canvas", "wide"], "WIDTHxHEIGHT"),
        ([portrait_file, "--from", clip, "--to", "out.mp4", "--background", "nice"], "nice"),
        ([portrait_file, "--from", clip, "--to", "out.mp4", "--set", "nose=1"], "nose"),
        ([clip.with_name("missing.png"), "--from", clip, "--to", "out.mp4"], "missing.png"),
    ):
        done = personalive("live", *arguments, "--pipeline", "preview")
        assert done.code == 2, arguments
        assert said in done.err
        assert done.err.splitlines()[-1].startswith("error: ")
        assert list(tmp_path.iterdir()) == []


def test_cameras_are_listed_or_said_to_be_missing(personalive: Call) -> None:
    done = personalive("live", "--list-devices")
    assert done.code == 0
    assert done.out.startswith("0: ") or "no camera" in done.err


def started(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "live",
        *map(str, arguments),
        "--pipeline",
        "preview",
        "--size",
        "256",
    ]
    return subprocess.Popen(command, **options)  # type: ignore[call-overload, no-any-return]


def wait_for(read: object, text: bytes, within: float = 90.0) -> bytes:
    """Read until the text has come."""
    assert callable(read)
    said, until = b"", time.monotonic() + within
    while text not in said:
        assert time.monotonic() < until, said
        more = read()
        assert more, said
        said += more
    return said


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_a_complete_file(
    portrait_file: Path, clip: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    path = tmp_path / "out.mp4"
    running = started(portrait_file, "--from", clip, "--to", path, "--square", stderr=subprocess.PIPE)
    with running:
        assert running.stderr is not None
        stream = running.stderr
        said = wait_for(stream.readline, b"face found")  # without a terminal, a line now and then
        assert b"Ctrl-C ends it" in said
        assert b"\x1b" not in said
        time.sleep(1.0)
        running.send_signal(number)
        rest = stream.read()
        assert running.wait(30) == code
    assert b"frames" in rest
    assert b"Traceback" not in rest
    with open_driving(path) as source:
        assert next(iter(source)).image.shape == (256, 256, 3)
    assert (read_provenance(path) or {})["synthetic"] == "true"
    assert list(tmp_path.iterdir()) == [path]


@POSIX
@pytest.mark.slow
def test_keys_of_the_terminal(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()  # type: ignore[attr-defined, unused-ignore]
    running = started(
        portrait_file,
        "--from",
        clip,
        "--to",
        tmp_path / "out.mp4",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with running:
        wait_for(lambda: os.read(ours, 4096), b"face found")
        for key, shown in (
            (b"p", b"paused"),
            (b"p", b"face found"),
            (b"m", b"mirrored"),
            (b"n", b"one portrait only"),
        ):
            os.write(ours, key)
            wait_for(lambda: os.read(ours, 4096), shown)
        os.write(ours, b"q")
        wait_for(lambda: os.read(ours, 4096), b"out.mp4: ")
        assert running.wait(30) == 0
    os.close(ours)
