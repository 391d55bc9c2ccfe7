from __future__ import annotations

from pathlib import Path

import av
import pytest

from personalive.errors import InputError
from personalive.live.clip_sound import ClipSound
from tests.live.streams import write_flashes
from tests.server.client import CLIP


def test_sound_comes_piece_by_piece_and_once_more_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_flashes(path, 2.0)
    got: list[tuple[av.AudioFrame, float | None]] = []
    sound = ClipSound(path, lambda frame, at: got.append((frame, at)))
    sound.play_until(0.5, 0.0)
    count = len(got)
    assert 0.4 < sum(frame.samples / frame.sample_rate for frame, _ in got) < 0.6
    sound.play_until(0.5, 0.0)
    assert len(got) == count
    sound.play_until(99.0, 0.0)
    sound.rewind()
    sound.play_until(0.2, 2.0)
    sound.close()
    times = [at for _, at in got if at is not None]
    assert len(times) == len(got)
    assert times == sorted(times)
    assert times[0] == pytest.approx(0, abs=0.03)
    assert 2.0 <= times[-1] < 2.2
    assert [frame.time for frame, _ in got] == pytest.approx(times, abs=1e-5)


def test_what_has_no_sound_is_refused(portrait_file: Path) -> None:
    for path in (CLIP, portrait_file):
        with pytest.raises(InputError, match="has no sound: leave --sound out"):
            ClipSound(path, lambda frame, at: None)
