"""Files that are written in fragments, and cut off anywhere."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personalive.errors import MediaError
from personalive.media import (
    FragmentedWriter,
    Provenance,
    VideoReader,
    finalize_fragments,
    fragmented_writer,
    read_provenance,
)

FRAMES = 100
RATE = Fraction(25)
MARK = Provenance("personalive 1", "preview", "ab" * 32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of noise that becomes brighter."""
    path = tmp_path_factory.mktemp("fragments") / "a.fragments.mp4"
    noise = np.random.default_rng(2).integers(0, 60, (FRAMES, 48, 65, 3), np.uint8)
    writer = FragmentedWriter(path, size=(65, 48), rate=RATE, provenance=MARK)
    for number, picture in enumerate(noise):
        writer.write(picture + np.uint8(number))
    writer.close()
    return path


def brightness(path: Path) -> list[float]:
    with VideoReader(path) as video:
        assert video.info.fps == pytest.approx(float(RATE))
        return [float(frame.image.mean()) for frame in video]


def kept(whole: Path, folder: Path, length: int | None = None) -> tuple[int, list[float]]:
    """Return how many frames are said to be kept of the first `length` bytes, and how bright each is."""
    partial, target = folder / "partial.mp4", folder / "target.mp4"
    target.unlink(missing_ok=True)
    shutil.copyfile(whole, partial)
    if length is not None:
        with partial.open("r+b") as file:
            file.truncate(length)
    count = finalize_fragments(partial, target)
    assert not partial.exists()
    mark = read_provenance(target)
    assert mark is not None
    assert (mark["pipeline"], mark["reference_sha256"]) == ("preview", "ab" * 32)
    return count, brightness(target)


def test_all_of_a_complete_file_is_kept(whole: Path, tmp_path: Path) -> None:
    count, seen = kept(whole, tmp_path)
    assert count == len(seen) == FRAMES
    assert seen == sorted(seen)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1))
def test_what_is_cut_off_anywhere_is_kept_up_to_there(whole: Path, tmp_path: Path, share: float) -> None:
    length = round(share * whole.stat().st_size)
    try:
        count, seen = kept(whole, tmp_path, length)
    except MediaError:
        assert share < 0.35  # of the first second there is nothing that could be played
        assert list(tmp_path.iterdir()) == []
        return
    assert count == len(seen) > 0
    # Two fragments are lost at most: the one that was cut, and what the encoder held.
    assert count >= share * FRAMES - 2 * 25 - 5
    assert seen == pytest.approx(brightness(whole)[:count], abs=1.0)


def test_without_room_for_another_file_the_fragments_themselves_are_kept(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> list[str]:
        raise MediaError("No space left on device.")

    monkeypatch.setattr(fragmented_writer, "concat_videos", full)
    count, seen = kept(whole, tmp_path)
    assert count == len(seen) == FRAMES
    with av.open(str(tmp_path / "target.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@given(st.integers(0, 200_000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_silence_before_the_sound_is_as_long_as_asked_for(tmp_path: Path, count: int) -> None:
    """Neither shorter nor longer by a sample than silence that is encoded with the sound, at a few more bits."""
    tone = np.repeat((12_000 * np.sin(np.arange(4800) / 5)).astype(np.int16)[:, None], 2, axis=1)
    heard = []
    for path, silence in ((tmp_path / "a.mp4", count), (tmp_path / "b.mp4", 0)):
        writer = FragmentedWriter(path, size=(64, 48), rate=RATE, provenance=MARK)
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.write_silence(silence)
        writer.write_audio(np.zeros((count - silence, 2), np.int16))
        writer.write_audio(tone)
        writer.close()
        with av.open(str(path)) as container:
            frames = list(container.decode(audio=0))
        assert [frame.pts for frame in frames] == [1024 * number for number in range(len(frames))]
        heard.append(np.concatenate([frame.to_ndarray()[0] for frame in frames]))
    assert len(heard[0]) == len(heard[1])
    assert np.corrcoef(heard)[0, 1] > 0.99  # a sample more or less gives 0.98
