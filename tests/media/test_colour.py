from __future__ import annotations

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from personalive.media import colour

LUMA = {1: (0.2126, 0.7152, 0.0722), 6: (0.299, 0.587, 0.114)}
"""Shares of red, green and blue by FFmpeg's number of the matrix."""


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """A picture of every brightness and many colours, whose chroma changes little between neighbours."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.dstack([red, green, 255 - (red + green) / 2]).round().astype(np.uint8)


def planes_of(image: NDArray[np.uint8], matrix: int, *, full: bool) -> list[NDArray[np.float64]]:
    """Y, U and V of every pixel, by the definition."""
    red, green, blue = np.moveaxis(image.astype(np.float64) / 255, 2, 0)
    shares = LUMA[matrix]
    luma = shares[0] * red + shares[1] * green + shares[2] * blue
    chroma = (blue - luma) / (2 - 2 * shares[2]), (red - luma) / (2 - 2 * shares[0])
    spans = (255, 255) if full else (219, 224)
    return [luma * spans[0] + (0 if full else 16), *(c * spans[1] + 128 for c in chroma)]


@pytest.mark.parametrize("size", [(64, 48), (130, 98)])
def test_what_an_encoder_gets_is_limited_bt709(size: tuple[int, int]) -> None:
    image = smooth(*size)
    frame = colour.to_limited_bt709(image, "yuv420p")
    assert (frame.format.name, frame.width, frame.height) == ("yuv420p", *size)
    assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
    stacked = np.asarray(frame.to_ndarray(), np.uint8)
    luma, *chroma = planes_of(image, 1, full=False)
    assert np.abs(stacked[: size[1]] - luma).max() <= 1
    assert stacked[: size[1]].mean() == pytest.approx(luma.mean(), abs=0.1)
    quarters = stacked[size[1] :].reshape(2, size[1] // 2, size[0] // 2)
    for made, wanted in zip(quarters, chroma, strict=True):
        mean = (wanted[::2, ::2] + wanted[1::2, ::2] + wanted[::2, 1::2] + wanted[1::2, 1::2]) / 4
        assert np.abs(made - mean).max() <= 1


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", sorted(LUMA))
@pytest.mark.parametrize("size", [(64, 48), (70, 50)])
def test_what_a_decoder_gives_becomes_rgb(size: tuple[int, int], matrix: int, full: bool) -> None:
    """70 columns: rows are longer in memory than the picture is wide."""
    width, height = size
    image = smooth(width, height)
    luma, *chroma = (np.clip(plane.round(), 0, 255) for plane in planes_of(image, matrix, full=full))
    quarters = [plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3)).round() for plane in chroma]
    stacked = np.concatenate([luma.ravel(), *(plane.ravel() for plane in quarters)])
    frame = av.VideoFrame.from_ndarray(stacked.reshape(height * 3 // 2, width).astype(np.uint8), "yuv420p")
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    made = colour.to_rgb(frame, width, height)
    assert made.shape == (height, width, 3)
    assert made.flags["C_CONTIGUOUS"]
    inner = (slice(2, -2), slice(2, -2))  # at the edges chroma is carried on, not continued
    assert np.abs(made[inner].astype(int) - image[inner]).max() <= 6
    assert np.abs(made[inner].astype(int) - image[inner]).mean() < 1


def test_an_odd_size_keeps_its_last_row_and_column() -> None:
    frame = av.VideoFrame(65, 47, "yuv420p")
    for plane, value in zip(frame.planes, (81, 90, 240), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range = 6, 1
    made = colour.to_rgb(frame, 65, 47)
    assert made.shape == (47, 65, 3)
    assert np.abs(made.astype(int) - (255, 0, 0)).max() <= 2


def test_another_size_and_another_format_come_out_alike() -> None:
    image = smooth(64, 48)
    frame = colour.to_limited_bt709(image, "yuv420p")
    plain = colour.to_rgb(frame, 64, 48).astype(int)
    finer = colour.to_limited_bt709(image, "yuv444p")
    assert np.abs(colour.to_rgb(finer, 64, 48).astype(int) - plain)[2:-2, 2:-2].max() <= 6
    small = colour.to_rgb(frame, 32, 24).astype(int)
    assert np.abs(small - plain.reshape(24, 2, 32, 2, 3).mean((1, 3)))[2:-2, 2:-2].max() <= 6
