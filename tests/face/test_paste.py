from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from personalive.face.crop import CropBox, extract_crop
from personalive.face.paste import PasteBack
from personalive.media.types import Image

BOX = CropBox(100.4, 60.2, 220.7, 220.7)


def test_what_was_cut_out_goes_back_unseen(portrait: Image) -> None:
    pasted = PasteBack(portrait, BOX).paste(extract_crop(portrait, BOX, (512, 512)))
    difference = np.abs(pasted.astype(int) - portrait.astype(int))
    assert np.percentile(difference, 99.9) <= 16
    assert difference.mean() < 0.3


@settings(max_examples=50, deadline=None)
@given(
    corner=st.tuples(st.floats(-150, 500), st.floats(-150, 500)),
    size=st.tuples(st.floats(8, 700), st.floats(8, 700)),
    feather=st.floats(0, 0.5),
)
def test_outside_the_crop_every_pixel_is_the_stills(
    portrait: Image, corner: tuple[float, float], size: tuple[float, float], feather: float
) -> None:
    box = CropBox(*corner, *size)
    assume(box.right > 2 and box.bottom > 2)
    pasted = PasteBack(portrait, box, feather=feather).paste(np.zeros((64, 64, 3), np.uint8))
    assert pasted.shape == portrait.shape
    x, y = np.meshgrid(np.arange(512), np.arange(512))
    outside = (x + 1 <= box.left) | (x >= box.right) | (y + 1 <= box.top) | (y >= box.bottom)
    assert np.array_equal(pasted[outside], portrait[outside])


def test_a_foreign_colour_fades_in_without_a_step() -> None:
    grey = np.full((300, 400, 3), 100, np.uint8)
    pasted = PasteBack(grey, CropBox(50, 50, 200, 200)).paste(np.full((64, 64, 3), 160, np.uint8))
    assert pasted[150, 150].tolist() == [160] * 3
    line = pasted[150, 45:100, 0].astype(int)
    assert line[0] == 100
    assert np.diff(line).max() <= 6
    assert np.diff(line).min() >= 0


def test_where_the_crop_reaches_the_stills_edge_nothing_is_blended() -> None:
    grey = np.full((300, 400, 3), 100, np.uint8)
    pasted = PasteBack(grey, CropBox(-40, -40, 200, 200)).paste(np.full((64, 64, 3), 160, np.uint8))
    assert pasted[0, 0].tolist() == [160] * 3
    assert pasted[0, 300].tolist() == [100] * 3
    whole = PasteBack(grey, CropBox(-50, -100, 500, 500)).paste(np.full((64, 64, 3), 160, np.uint8))
    assert (whole == 160).all()


def test_the_stills_pixels_are_never_written(portrait: Image) -> None:
    before = portrait.copy()
    PasteBack(portrait, BOX).paste(np.zeros((96, 96, 3), np.uint8))
    assert np.array_equal(portrait, before)


def test_a_crop_beside_the_still_is_refused(portrait: Image) -> None:
    with pytest.raises(ValueError, match="no pixel"):
        PasteBack(portrait, CropBox(600, 0, 100, 100))
    with pytest.raises(ValueError, match="feather"):
        PasteBack(portrait, BOX, feather=0.6)
