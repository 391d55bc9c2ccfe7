from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.media import AudioTrack, VideoReader, open_writer

from .clips import PROVENANCE, level, sound_of

DEFAULT, PLAIN = Disposition.default, Disposition(0)
COVER = Disposition.attached_pic


def write(
    path: Path,
    pictures: Sequence[tuple[int, Disposition]],
    sounds: Sequence[Disposition] = (),
    codecs: Sequence[str] = ("aac",) * 3,
) -> Path:
    """A clip of ten frames with picture tracks of these widths and sound tracks of 440 Hz, 880 Hz and so on."""
    with av.open(str(path), "w") as container:
        tracks: list[VideoStream] = []
        voices: list[AudioStream] = []
        for width, disposition in pictures:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = width, 32, "yuv420p"
            video.disposition = disposition
            tracks.append(video)
        for codec, disposition in zip(codecs, sounds, strict=False):
            voice = cast(AudioStream, container.add_stream(codec, rate=48_000))
            voice.codec_context.layout = "mono"
            voice.disposition = disposition
            voices.append(voice)
        for index in range(10):
            for video in tracks:
                frame = av.VideoFrame.from_ndarray(level(90, video.width, 32), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(video.encode(frame))
            for number, voice in enumerate(voices, 1):
                times = np.arange(index * 1920, (index + 1) * 1920) / 48_000
                wave = (0.5 * np.sin(2 * np.pi * 440 * number * times)).astype(np.float32)[None]
                block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 48_000, index * 1920, Fraction(1, 48_000)
                resampler = av.AudioResampler(format=voice.codec_context.format)
                container.mux([packet for part in resampler.resample(block) for packet in voice.encode(part)])
        for video in tracks:
            container.mux(video.encode(None))
        for voice in voices:
            container.mux(voice.encode(None))
    return path


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([32, 48, 64]), st.sampled_from([DEFAULT, PLAIN])), min_size=1, max_size=3
    ),
    st.sampled_from(["mkv", "mov"]),
)
def test_the_default_picture_track_else_the_largest(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[tuple[int, Disposition]], suffix: str
) -> None:
    path = write(tmp_path_factory.mktemp("tracks") / f"a.{suffix}", pictures)
    with av.open(str(path)) as container:  # what the container could keep of it
        kept = [(stream.width, bool(stream.disposition & DEFAULT)) for stream in container.streams.video]
    wanted = max([width for width, default in kept if default] or [width for width, _ in kept])
    with VideoReader(path) as reader:
        assert reader.info.width == next(iter(reader)).image.shape[1] == wanted
        assert len(list(reader)) == 10
        if len(pictures) == 1:
            assert reader.info.notes == ()
        else:
            (note,) = reader.info.notes
            assert f"has {len(pictures)} video tracks" in note
            assert f"of {wanted}×32, is used" in note


def frequency(path: Path) -> float:
    samples = sound_of(path)[3][4800:14_400]
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * 48_000 / len(samples))


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("default", [0, 1, 2])
def test_the_default_sound_track(tmp_path: Path, suffix: str, default: int) -> None:
    sounds = [DEFAULT if number == default else PLAIN for number in range(3)]
    path = write(tmp_path / f"a.{suffix}", [(64, DEFAULT)], sounds)
    output = tmp_path / "out.mp4"
    with open_writer(
        output, width=64, height=32, fps=25, provenance=PROVENANCE, audio=AudioTrack(path)
    ) as writer:
        for _ in range(10):
            writer.write(level(9, 64, 32))
    assert frequency(output) == pytest.approx(440 * (default + 1), abs=10)
    (note,) = VideoReader(path).info.sound_notes
    which = ("first", "second", "third")[default]
    assert note == f"a.{suffix} has 3 sound tracks: the {which} (aac) is used."


def test_a_commentary_is_not_the_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", [(64, DEFAULT)], [Disposition.comment | DEFAULT, PLAIN])
    assert "the second (aac) is used" in VideoReader(path).info.sound_notes[0]


@pytest.mark.parametrize("others", [0, 1])
def test_sound_that_nobody_decodes(tmp_path: Path, others: int) -> None:
    path = write(tmp_path / "a.mov", [(64, DEFAULT)], [DEFAULT] * (1 + others), ("pcm_s16le", "aac"))
    path.write_bytes(path.read_bytes().replace(b"sowt", b"apac"))  # what iPhones call theirs
    with VideoReader(path) as reader:
        assert len(list(reader)) == 10
        assert reader.warnings == []
        assert reader.info.has_audio == bool(others)
        (note,) = reader.info.sound_notes
        assert ("the second (aac) is used" if others else "cannot be decoded here: it is left out") in note
