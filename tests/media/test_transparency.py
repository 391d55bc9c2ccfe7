from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from personalive.media import VideoReader


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        ("webm", "libvpx-vp9", "yuva420p"),
        ("webm", "libvpx", "yuva420p"),
        ("mov", "prores_ks", "yuva444p10le"),
        ("mov", "qtrle", "argb"),
        ("mov", "png", "rgba"),
        ("mkv", "ffv1", "bgra"),
    ],
)
def test_transparent_video_lies_on_white(tmp_path: Path, suffix: str, codec: str, pixel_format: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} in this build of FFmpeg")
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:, 20:44, 3] = 128
    pixels[:, 44:, 3] = 255
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        options = {"auto-alt-ref": "0", "deadline": "realtime"} if codec.startswith("libvpx") else {}
        stream = cast(VideoStream, container.add_stream(codec, rate=25, options=options))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, pixel_format, 4_000_000
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for start in (0.0, 0.08):
        with VideoReader(path, start=start) as reader:
            image = next(iter(reader)).image[24].astype(int)
        assert np.abs(image[10] - (255, 255, 255)).max() <= 6
        assert np.abs(image[32] - (227, 127, 127)).max() <= 10
        assert np.abs(image[54] - (200, 0, 0)).max() <= 10
