from __future__ import annotations

import contextlib
import itertools
import threading
from pathlib import Path

import pytest

from personalive.errors import InputError
from personalive.live.clip_reader import ClipReader


def test_a_clip_is_looped_at_its_pace(clip: Path) -> None:
    """Time goes on when it begins again. A machine that is busy leaves frames out, so not all are asked for."""
    with contextlib.closing(ClipReader(clip, 0, threading.Event())) as reader:
        frames = list(itertools.islice(reader, 40))
    times = [frame.time for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert times[-1] - times[0] >= 39 / 25 - 0.01
    assert {(frame.width, frame.height) for frame in frames} == {(320, 240)}


def test_a_still_is_shown_again_and_again(portrait_file: Path) -> None:
    with contextlib.closing(ClipReader(portrait_file, 0, threading.Event())) as reader:
        times = [frame.time for frame in itertools.islice(reader, 4)]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


def test_a_clip_on_its_side_is_turned(clip: Path) -> None:
    with contextlib.closing(ClipReader(clip, 90, threading.Event())) as reader:
        frame = next(iter(reader))
    assert (frame.width, frame.height) == (240, 320)


def test_it_stops_at_once_while_it_waits(clip: Path) -> None:
    stopping = threading.Event()
    with contextlib.closing(ClipReader(clip, 0, stopping)) as reader:
        for count, _ in enumerate(reader):
            stopping.set()
            assert count == 0


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(InputError, match=name):
            ClipReader(tmp_path / name, 0, threading.Event())
