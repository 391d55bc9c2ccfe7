"""Clips of every container with their tracks in any order and timestamps of every kind: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.media import AudioTrack, VideoReader, open_writer, resample

from .clips import PROVENANCE, level, sound_of, tell, tone

FEW = settings(max_examples=12, deadline=None)
MAKES = {
    "mp4": ("libx264", "aac"),
    "mov": ("libx264", "pcm_s16le"),
    "mkv": ("libx264", "libopus"),
    "webm": ("libvpx", "libopus"),
    "avi": ("mpeg4", "libmp3lame"),
}
ORDERS = st.sampled_from(["v", "sv", "vs", "ssv", "svs"])


def add_video(container: av.container.OutputContainer, codec: str, rate: int) -> VideoStream:
    options = {"libx264": {"preset": "ultrafast", "crf": "1", "bf": "3"}, "libvpx": {"deadline": "realtime"}}
    stream = container.add_stream(codec, rate=rate, options=options.get(codec, {}))
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.bit_rate = 2_000_000
    return stream


def write(path: Path, order: str, count: int) -> Path:
    """A clip of `count` frames at 25 per second, each of its grey level, with tracks of video (v) and sound (s)."""
    codec, sound = MAKES[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        tracks: list[VideoStream | AudioStream] = []
        for kind in order:
            if kind == "v":
                tracks.append(add_video(container, codec, 25))
            else:
                stream = container.add_stream(sound, rate=48_000)
                assert isinstance(stream, AudioStream)
                tracks.append(stream)
        for index in range(count):
            for track in tracks:
                if isinstance(track, VideoStream):
                    frame = av.VideoFrame.from_ndarray(level(20 + 6 * index), format="rgb24")
                    frame.pts, frame.time_base = index, Fraction(1, 25)
                    container.mux(track.encode(frame))
                else:
                    container.mux(track.encode(as_encoder(track, tone(index, Fraction(25), 48_000))))
        for track in tracks:
            container.mux(track.encode(None))
    return path


def as_encoder(track: AudioStream, frame: av.AudioFrame) -> av.AudioFrame:
    (converted,) = av.AudioResampler(format=track.codec_context.format, layout="stereo").resample(frame)
    return converted


@pytest.mark.parametrize("suffix", sorted(MAKES))
def test_every_frame_whatever_the_order_of_tracks(suffix: str) -> None:
    @FEW
    @given(ORDERS, st.integers(1, 12))
    def check(order: str, count: int) -> None:
        with TemporaryDirectory() as folder:
            path = write(Path(folder) / f"a.{suffix}", order, count)
            with VideoReader(path) as reader:
                shown = [round((tell(frame.image) - 20) / 6) for frame in reader]
                assert shown == list(range(count))
                assert reader.warnings == []
                assert reader.info.frames == count
                assert reader.info.fps == 25
                # AVI begins with a frame that is held where sound begins earlier.
                assert len(list(resample(reader, 25))) in {count, count + (suffix == "avi")}

    check()


@pytest.mark.parametrize("suffix", sorted(MAKES))
def test_sound_to_its_end_whatever_the_order_of_tracks(tmp_path: Path, suffix: str) -> None:
    for order in ("sv", "vs"):
        source = write(tmp_path / f"{order}.{suffix}", order, 20)
        output = tmp_path / f"{order}.mp4"
        with open_writer(
            output,
            width=64,
            height=48,
            fps=25,
            provenance=PROVENANCE,
            audio=AudioTrack(source),
            overwrite=True,
        ) as writer:
            for _ in range(20):
                writer.write(level(9))
        assert writer.warnings == []
        _, begin, end, samples = sound_of(output)
        assert end - begin == pytest.approx(0.8, abs=0.05)
        assert np.abs(samples[-2000:-1100]).max() > 0.3


def stamped(path: Path, codec: str, claimed: int, stamps: Sequence[int]) -> Path:
    """A Matroska file with a frame for each of `stamps`, in milliseconds, whose header claims another rate."""
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, claimed)
        packets = []
        for index in range(len(stamps)):
            frame = av.VideoFrame.from_ndarray(level(20 + 5 * index % 200), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, claimed)
            packets.extend(stream.encode(frame))
        packets.extend(stream.encode(None))
        container.start_encoding()
        for packet, stamp in zip(packets, stamps, strict=True):
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = stamp
            packet.duration = 0
            container.mux(packet)
    return path


def regular(step: int, count: int) -> list[int]:
    return [step * k for k in range(count)]


def with_a_long_first(step: int, count: int) -> list[int]:
    return [0, *(1000 + step * k for k in range(count - 1))]


def with_pauses(step: int, count: int) -> list[int]:
    return [step * k + 700 * (k // 8) for k in range(count)]


def repeated(step: int, count: int) -> list[int]:
    return [step * (k - (k % 5 == 4)) for k in range(count)]


def in_pairs(step: int, count: int) -> list[int]:
    return [step * (k - k % 2) for k in range(count)]


PATTERNS = (regular, with_a_long_first, with_pauses, repeated, in_pairs)


@pytest.mark.parametrize("codec", ["libvpx", "mjpeg"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_rate_is_that_of_the_timestamps(codec: str, pattern: Callable[[int, int], list[int]]) -> None:
    @settings(max_examples=6, deadline=None)
    @given(st.sampled_from([8, 17, 33, 40, 100]), st.integers(12, 24), st.sampled_from([25, 1000]))
    def check(step: int, count: int, claimed: int) -> None:
        stamps = pattern(step, count)
        with TemporaryDirectory() as folder:
            path = stamped(Path(folder) / "a.mkv", codec, claimed, stamps)
            with VideoReader(path) as reader:
                frames = list(reader)
                assert len(frames) == count
                assert all(later.time > frame.time for frame, later in pairwise(frames))
                assert reader.info.fps == pytest.approx(1000 / step, rel=0.1)
                assert frames[-1].time == pytest.approx(stamps[-1] / 1000, abs=1.5 * step / 1000)
                made = len(list(resample(reader, reader.info.fps)))
                assert made == pytest.approx(stamps[-1] / step + 1, rel=0.1, abs=1.5)

    check()


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 20), st.sampled_from([0, 300]))
def test_without_times_frames_come_at_the_claimed_rate_or_25(count: int, stamp: int) -> None:
    with TemporaryDirectory() as folder:
        for claimed, wanted in ((20, 20), (1000, 25)):
            path = stamped(Path(folder) / f"{claimed}.mkv", "mjpeg", claimed, [stamp] * count)
            with VideoReader(path) as reader:
                assert reader.info.fps == wanted
                assert [frame.time for frame in reader] == pytest.approx([k / wanted for k in range(count)])


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(4)), st.integers(3, 6))
def test_times_a_little_out_of_order_lose_no_frame(order: list[int], groups: int) -> None:
    stamps = [40 * (4 * group + place) for group in range(groups) for place in order]
    with TemporaryDirectory() as folder:
        path = stamped_out_of_order(Path(folder) / "a.mkv", stamps)
        with VideoReader(path) as reader:
            assert reader.info.fps == 25
            assert [frame.time for frame in reader] == pytest.approx(
                [0.04 * k for k in range(4 * groups)], abs=0.002
            )


def stamped_out_of_order(path: Path, stamps: Sequence[int]) -> Path:
    with av.open(str(path), "w") as container:
        stream = add_video(container, "mjpeg", 25)
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(level(20 + 5 * index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for packet in stream.encode(frame):
                packet.time_base = Fraction(1, 1000)
                packet.pts, packet.dts = stamp, min(stamp, 40 * index - 200)
                container.mux(packet)
    return path
