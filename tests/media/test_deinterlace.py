from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.filter import Graph
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.media import Image, VideoReader
from personalive.media.deinterlace import deinterlace


def moment(k: int) -> Image:
    """A bright bar that goes to the right by two pixels from moment to moment."""
    image = np.full((64, 96, 3), 40, np.uint8)
    image[:, 8 + 2 * k : 24 + 2 * k] = 220
    return image


def woven(k: int) -> Image:
    """Two moments, every other line each."""
    frame = moment(2 * k)
    frame[1::2] = moment(2 * k + 1)[1::2]
    return frame


def combs(image: Image) -> float:
    grey = image.mean(2)
    return float(np.abs(2 * grey[1:-1] - grey[:-2] - grey[2:]).mean())


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "mpeg2video"), ("mp4", "libx264")])
def test_interlaced_clips_come_without_combs(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        options = {"x264-params": "tff=1:interlaced=1", "crf": "4"} if codec == "libx264" else {}
        stream = cast(VideoStream, container.add_stream(codec, rate=25, options=options))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 4_000_000
        stream.codec_context.flags |= 0x40000 | 0x20000000
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(woven(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for start in (0.0, 0.2):
        with VideoReader(path, start=start) as reader:
            frames = list(reader)
        first = round(start * 25)
        assert [frame.time for frame in frames] == pytest.approx(
            [k / 25 for k in range(first, 12)], abs=0.001
        )
        assert combs(woven(3)) > 8
        assert all(combs(frame.image) < 3 for frame in frames[1:-1])


def flagged(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame with the flag of interlaced ones, which FFmpeg alone can set."""
    graph = Graph()
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(source, graph.add("setparams", "field_mode=tff"), graph.add("buffersink")).configure()
    graph.push(frame)
    made = graph.pull()
    assert isinstance(made, av.VideoFrame)
    return made


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([(96, 64), (64, 96), (2, 2)])), max_size=8))
def test_as_many_frames_with_their_own_times(kinds: list[tuple[bool, tuple[int, int]]]) -> None:
    frames = []
    for index, (interlaced, size) in enumerate(kinds):
        frame = flagged(av.VideoFrame(*size, "yuv420p")) if interlaced else av.VideoFrame(*size, "yuv420p")
        assert frame.interlaced_frame == interlaced
        frame.pts = None if index % 3 == 2 else 1000 - index
        frame.duration = index
        frames.append(frame)
    wanted = [(frame.pts, frame.duration, frame.width, frame.height) for frame in frames]
    made = [(frame.pts, frame.duration, frame.width, frame.height) for frame in deinterlace(iter(frames))]
    assert made == wanted
