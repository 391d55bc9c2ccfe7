from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from personalive.media import Image, colour, hdr

from .clips import COLOURS, patch_colours, patches

Float = NDArray[np.float64]
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Linear BT.709 to BT.2020, Report ITU-R BT.2087."""


def nits_of(image: Image) -> Float:
    """The light of an sRGB picture whose white has 203 nits, in BT.2020, (height, width, 3)."""
    coded = image / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return np.asarray(203 * linear @ TO_BT2020.T)


def pq(nits: Float) -> Float:
    power = (nits / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg(nits: Float) -> Float:
    """BT.2100's inverse OOTF for a display of 1000 nits, then its OETF."""
    luma = nits @ np.array([0.2627, 0.6780, 0.0593]) / 1000
    scene = nits / 1000 * np.maximum(luma, 1e-9)[..., None] ** (1 / 1.2 - 1)
    coded = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), coded))


def ncl(coded: Float) -> Float:
    luma = coded @ np.array([0.2627, 0.6780, 0.0593])
    return np.stack([luma, (coded[..., 2] - luma) / 1.8814, (coded[..., 0] - luma) / 1.4746], -1)


def ictcp(nits: Float) -> Float:
    waves = pq(nits @ np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]).T / 4096)
    return np.asarray(
        waves @ np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]).T / 4096
    )


def frame_of(planes: Float, *, transfer: int, matrix: int, full: bool = False) -> av.VideoFrame:
    """A 10-bit frame of luma and chroma (height, width, 3), the latter around 0."""
    height, width = planes.shape[:2]
    scale, offset = (np.full(3, 1023), [0, 512, 512]) if full else ([876, 896, 896], [64, 512, 512])
    codes = np.clip((planes * scale + offset).round(), 0, 1023).astype(np.uint16)
    frame = av.VideoFrame(width, height, "yuv444p10le")
    for index, plane in enumerate(frame.planes):
        rows = np.zeros((height, plane.line_size // 2), np.uint16)
        rows[:, :width] = codes[..., index]
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_primaries, frame.color_trc = matrix, 9, transfer
    frame.color_range = 2 if full else 1
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", ["PQ", "HLG", "ICtCp"])
def test_colours_come_back(kind: str, full: bool) -> None:
    image = patches(64, 48)
    nits = nits_of(image)
    if kind == "ICtCp":
        frame = frame_of(ictcp(nits), transfer=16, matrix=14, full=full)
    else:
        frame = frame_of(
            ncl(pq(nits) if kind == "PQ" else hlg(nits)),
            transfer=16 if kind == "PQ" else 18,
            matrix=9,
            full=full,
        )
    assert hdr.detect_hdr(frame) == ("HLG" if kind == "HLG" else "PQ")
    made = patch_colours(colour.to_rgb(frame, 64, 48))
    # The brightest is pressed together a little, to leave room above; the rest is as it was.
    assert np.abs(made[:3] - COLOURS[:3]).max() <= 16
    assert 205 <= made[3].min() <= made[3].max() <= 240


def test_lights_above_white_still_differ() -> None:
    greys = np.array([[50.0, 203.0, 400.0, 800.0, 1000.0, 4000.0]])[..., None] * np.ones(3)
    made = colour.to_rgb(frame_of(ncl(pq(greys)), transfer=16, matrix=9), 6, 1)[0].mean(1)
    assert made[0] < 140
    # 8 bits of PQ are coarse up there.
    assert made[1] + 8 < made[2]
    assert made[2:].min() > 240


@settings(max_examples=30, deadline=None)
@given(st.floats(0.001, 10_000))
def test_the_curve_and_its_inverse(nits: float) -> None:
    value = np.array([nits])
    assert hdr.nits_to_pq(value) == pytest.approx(pq(value), rel=1e-4)
    assert hdr.pq_to_nits(hdr.nits_to_pq(value)) == pytest.approx(value, rel=1e-4)


def test_another_size() -> None:
    frame = frame_of(ncl(pq(nits_of(patches(64, 48)))), transfer=16, matrix=9)
    assert colour.to_rgb(frame, 32, 24).shape == (24, 32, 3)
