from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from hypothesis import given
from hypothesis import strategies as st

from personalive.media import Image
from tests.server import barcode

NUMBERS = st.integers(0, barcode.COUNT - 1)


def camera(number: int, width: int = 480, height: int = 270) -> Image:
    patches = np.random.default_rng(number).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(patches, (width, height)), np.uint8)
    barcode.draw(image, number)
    return image


def middle(image: Image, side: int) -> Image:
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return np.asarray(cv2.resize(image[top : top + short, left : left + short], (side, side)), np.uint8)


@given(NUMBERS, st.sampled_from([(480, 270), (640, 480), (1280, 720), (270, 480), (64, 64)]))
def test_a_number_is_read_back(number: int, size: tuple[int, int]) -> None:
    image = camera(number, *size)
    assert barcode.read(image) == number
    assert barcode.read(np.ascontiguousarray(image[..., 1])) == number


@given(NUMBERS, st.sampled_from([256, 320, 512, 768]), st.floats(0.5, 1.1))
def test_it_survives_the_middle_crop_and_brightness(number: int, side: int, gain: float) -> None:
    shown = cv2.convertScaleAbs(middle(camera(number), side), alpha=gain)
    assert barcode.read(shown.astype(np.uint8)) == number


@given(NUMBERS)
def test_it_survives_jpeg(number: int) -> None:
    _, coded = cv2.imencode(".jpg", middle(camera(number), 256), [cv2.IMWRITE_JPEG_QUALITY, 10])
    assert barcode.read(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)) == number


@given(st.integers(0, 2**32 - 1))
def test_what_is_no_barcode_is_not_read(seed: int) -> None:
    random = np.random.default_rng(seed)
    assert barcode.read(random.integers(0, 255, (270, 480), dtype=np.uint8)) is None
    assert barcode.read(np.full((270, 480), random.integers(0, 255), np.uint8)) is None


@given(NUMBERS, NUMBERS, st.floats(0.1, 0.9))
def test_two_frames_in_one_are_not_read_as_a_third(first: int, second: int, share: float) -> None:
    mixed = cv2.addWeighted(camera(first), 1 - share, camera(second), share, 0).astype(np.uint8)
    assert barcode.read(mixed) in {None, first, second}


def test_numbers_that_do_not_fit_are_refused() -> None:
    image = np.zeros((64, 64), np.uint8)
    for number in (-1, barcode.COUNT):
        with pytest.raises(ValueError, match="not within"):
            barcode.draw(image, number)


LIVE = {"libx264": {"tune": "zerolatency"}, "libvpx": {"deadline": "realtime", "cpu-used": "-6"}}


@pytest.mark.parametrize("codec", LIVE)
def test_it_survives_two_codecs_on_the_way(codec: str) -> None:
    numbers = range(4000, 4030)
    there = transcode([camera(number) for number in numbers], codec)
    back = transcode([middle(image, 512) for image in there], codec)
    assert [barcode.read(image) for image in back] == list(numbers)


def transcode(images: list[Image], codec: str) -> list[Image]:
    """Through a codec at 500 kbit/s and 30 frames per second."""
    height, width = images[0].shape[:2]
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.bit_rate, encoder.framerate, encoder.time_base = 500_000, Fraction(30), Fraction(1, 30)
    encoder.options, encoder.thread_count = LIVE[codec], 1
    decoder = av.CodecContext.create("h264" if codec == "libx264" else "vp8", "r")
    assert isinstance(decoder, VideoCodecContext)
    shown: list[Image] = []
    for count, image in enumerate([*images, None]):
        frame = None if image is None else av.VideoFrame.from_ndarray(image, format="rgb24")
        if frame is not None:
            frame.pts, frame.time_base = count, Fraction(1, 30)
        for packet in encoder.encode(frame):
            shown += map(rgb, decoder.decode(packet))
    shown += map(rgb, decoder.decode(None))
    return shown


def rgb(frame: av.VideoFrame) -> Image:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
