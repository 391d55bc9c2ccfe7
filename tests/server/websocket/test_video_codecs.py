from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.server.websocket.video_codecs import (
    MAX_PIXELS,
    UndecodableVideoError,
    VideoCodec,
    VideoDecoder,
    VideoEncoder,
    check_codecs,
)
from tests.server import barcode
from tests.server.camera import numbers

SIZE = (320, 240)
SCENE = numbers()
CODECS: tuple[VideoCodec, ...] = ("H264", "VP8")


def test_both_codecs_are_there() -> None:
    assert check_codecs() == CODECS


@pytest.mark.parametrize("codec", CODECS)
def test_each_frame_comes_out_as_it_goes_in(codec: VideoCodec) -> None:
    encoder, decoder = VideoEncoder(codec), VideoDecoder(codec)
    keyframes = []
    for number in range(40):
        bitrate = 1_000_000 if number < 30 else 500_000
        encoded = encoder.encode(SCENE(number, SIZE), 1000 * number, bitrate, keyframe=number == 20)
        assert encoded is not None
        if encoded.is_keyframe:
            keyframes.append(number)
        frame = decoder.decode(encoded.data, 1000 * number, is_keyframe=encoded.is_keyframe)
        assert frame is not None
        assert frame.time == pytest.approx(number / 1000)
        grey = np.asarray(frame.reformat(format="gray8").to_ndarray(), np.uint8)
        assert barcode.read(grey) == number
    assert keyframes == [0, 20, 30], "the first, the one asked for, and the first at another bitrate"


@pytest.mark.parametrize("codec", CODECS)
def test_a_keyframe_comes_first(codec: VideoCodec) -> None:
    encoder, decoder = VideoEncoder(codec), VideoDecoder(codec)
    key, delta = (encoder.encode(SCENE(k, SIZE), k, 1_000_000, keyframe=False) for k in range(2))
    assert key is not None
    assert delta is not None
    assert decoder.decode(delta.data, 1, is_keyframe=False) is None
    assert decoder.decode(key.data, 2, is_keyframe=True) is not None
    assert decoder.decode(delta.data, 3, is_keyframe=False) is not None


@pytest.mark.parametrize("codec", CODECS)
def test_giant_frames_are_refused(codec: VideoCodec) -> None:
    width, height = 4000, 2000
    assert width * height > MAX_PIXELS
    planes = np.zeros((height * 3 // 2, width), np.uint8)
    giant = VideoEncoder(codec).encode(planes, 0, 1_000_000, keyframe=True)
    assert giant is not None
    decoder = VideoDecoder(codec)
    assert decoder.decode(giant.data, 0, is_keyframe=True) is None
    assert decoder.decode(giant.data, 1, is_keyframe=True) is None
    with pytest.raises(UndecodableVideoError, match="cannot be decoded"):
        decoder.decode(giant.data, 2, is_keyframe=True)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CODECS), st.lists(st.binary(min_size=1, max_size=400), min_size=4, max_size=12))
def test_garbage_is_refused_in_the_end(codec: VideoCodec, pieces: list[bytes]) -> None:
    decoder, refused = VideoDecoder(codec), 0
    for index, piece in enumerate(pieces):
        try:
            if decoder.decode(piece, index, is_keyframe=True) is None:
                refused += 1
        except UndecodableVideoError:
            return
    assert refused < len(pieces)


@pytest.mark.parametrize("codec", CODECS)
def test_it_goes_on_with_the_next_keyframe_after_damage(codec: VideoCodec) -> None:
    encoder, decoder = VideoEncoder(codec), VideoDecoder(codec)
    first = encoder.encode(SCENE(0, SIZE), 0, 1_000_000, keyframe=True)
    assert first is not None
    assert decoder.decode(first.data, 0, is_keyframe=True) is not None
    assert decoder.decode(b"\xff" * 50, 1, is_keyframe=True) is None
    again = encoder.encode(SCENE(1, SIZE), 2, 1_000_000, keyframe=True)
    assert again is not None
    assert decoder.decode(again.data, 2, is_keyframe=True) is not None
