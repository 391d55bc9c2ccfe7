from __future__ import annotations

import contextlib
import itertools
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from personalive.errors import InputError
from personalive.live.clip_reader import ClipReader
from tests.live.streams import write_flashes
from tests.media.clips import write_clip
from tests.server.client import CLIP


def test_a_clip_is_looped_at_its_pace(clip: Path) -> None:
    """Time goes on when it begins again. A machine that is busy leaves frames out, so not all are asked for."""
    with contextlib.closing(ClipReader(clip, 0, threading.Event())) as reader:
        frames = list(itertools.islice(reader, 40))
    times = [frame.time for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert times[-1] - times[0] >= 39 / 25 - 0.01
    assert {(frame.width, frame.height) for frame in frames} == {(320, 240)}


class QuickTime(threading.Event):
    """A clock that goes on only where it is waited for, with an event that waits by it."""

    now = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return self.is_set()


@pytest.mark.parametrize("rate", [10, 24, 25, 30, 60, 120])
def test_a_loop_takes_as_long_as_the_clip(rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise what is heard beside it, such as music, would be another second off after some minutes."""
    clock = QuickTime()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    count = rate // 2
    path = write_clip(tmp_path / "clip.mp4", [np.zeros((48, 64, 3), np.uint8)] * count, fps=rate)
    with contextlib.closing(ClipReader(path, 0, clock)) as reader:
        times = [frame.time for frame in itertools.islice(reader, 4 * count + 1)]
    begins = times[::count]
    assert [later - earlier for earlier, later in itertools.pairwise(begins)] == pytest.approx(
        [count / rate] * 4, abs=1e-4
    )


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


def test_sound_comes_with_its_picture_through_the_loop(tmp_path: Path) -> None:
    """A click at each flash, after the clip's end as well; times go on."""
    path = tmp_path / "flashes.mp4"
    write_flashes(path, 0.5)
    sound: list[tuple[av.AudioFrame, float | None]] = []
    reader = ClipReader(path, 0, threading.Event(), lambda frame, at: sound.append((frame, at)))
    with contextlib.closing(reader):
        for frame in reader:
            if frame.time is not None and frame.time > 1.2:
                break
    times = [at for _, at in sound if at is not None]
    assert times == sorted(times)
    loud = [at for frame, at in sound if at is not None and np.abs(frame.to_ndarray()).max() > 0.3]
    begins = [at for before, at in itertools.pairwise([-1.0, *loud]) if at - before > 0.2]
    assert begins[:2] == pytest.approx([0.0, 0.5], abs=0.05)


def test_a_clip_without_sound_is_refused_where_sound_is_wanted() -> None:
    with pytest.raises(InputError, match="has no sound"):
        ClipReader(CLIP, 0, threading.Event(), lambda frame, at: None)
