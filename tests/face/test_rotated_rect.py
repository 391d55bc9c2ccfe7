from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.face.face import Face
from personalive.face.rotated_rect import RotatedRect
from personalive.media.types import Image


def dots(width: int, height: int, *places: tuple[float, float]) -> Image:
    """Smooth bright dots on black, so that a place can be measured to a fraction of a pixel."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    total = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in places)
    return np.repeat((255 * np.clip(total, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: Image) -> tuple[float, float]:
    weights = image[..., 0].astype(float)
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    return float((weights * x).sum() / weights.sum()), float((weights * y).sum() / weights.sum())


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2, math.pi / 2, math.pi])
@pytest.mark.parametrize(("width", "height"), [(100, 100), (120, 80), (400, 400)])
def test_what_is_taken_is_placed_back_where_it_was(angle: float, width: float, height: float) -> None:
    place = (143.0, 107.0)
    image = dots(300, 220, place)
    region = RotatedRect(150, 110, width, height, angle)
    taken = region.extract(image, 256, beyond=cv2.BORDER_CONSTANT)
    assert taken.shape == (256, 256, 3)
    assert taken.dtype == np.uint8
    x, y = centroid(taken)
    back = region.to_frame(np.array([[x / 256, y / 256, 0.1]], np.float32))
    assert back[0] == pytest.approx([*place, 0.1 * width], abs=0.4)


def test_a_region_of_many_pixels_is_warped_as_one_of_few() -> None:
    """Above a number of pixels the colours are warped three at a time: the same pixels come out."""
    image = np.asarray(cv2.resize(dots(64, 64, (20, 40), (50, 10)), (900, 900)), np.uint8)
    region = RotatedRect(450, 450, 880, 860, 0.2)
    large = region.extract(image, 128, beyond=cv2.BORDER_REPLICATE)
    small = RotatedRect(225, 225, 440, 430, 0.2).extract(
        np.asarray(cv2.resize(image, (450, 450)), np.uint8), 128, beyond=cv2.BORDER_REPLICATE
    )
    assert np.abs(large.astype(int) - small).mean() < 3


def test_the_whole_image_is_letterboxed() -> None:
    image = np.full((60, 180, 3), 200, np.uint8)
    taken = RotatedRect.covering(image).extract(image, 90, beyond=cv2.BORDER_CONSTANT)
    assert (taken[:29] == 0).all()
    assert (taken[31:59, 1:] == 200).all()
    assert (taken[61:] == 0).all()


def test_beyond_the_image_its_edge_goes_on() -> None:
    image = np.full((50, 50, 3), 70, np.uint8)
    assert (RotatedRect(-60, 20, 60, 60, 1.0).extract(image, 32, beyond=cv2.BORDER_REPLICATE) == 70).all()
    assert (RotatedRect(-60, 20, 60, 60, 1.0).extract(image, 32, beyond=cv2.BORDER_CONSTANT) == 0).all()


@pytest.mark.parametrize(("height", "width"), [(1, 33_000), (33_000, 1), (2, 40_000), (1, 1)])
def test_no_image_is_too_long(height: int, width: int) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    taken = RotatedRect(width / 2, height / 2, width, height).extract(image, 64, beyond=cv2.BORDER_REPLICATE)
    assert (taken == 90).all()


def test_a_long_image_that_is_shrunk_first_keeps_its_places() -> None:
    image = np.zeros((8, 40_000, 3), np.uint8)
    image[:, 20_000:] = 255
    taken = RotatedRect(20_000, 4, 40_000, 8).extract(image, 64, beyond=cv2.BORDER_REPLICATE)
    assert (taken[:, :31] == 0).all()
    assert (taken[:, 33:] == 255).all()


numbers = st.floats(-1e4, 1e4, width=32)


@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    x=numbers,
    y=numbers,
    width=st.floats(0, 1e4, width=32),
    height=st.floats(0, 1e4, width=32),
    angle=st.floats(-4, 4, width=32),
)
def test_any_region_of_any_image_can_be_taken(
    shape: tuple[int, int], x: float, y: float, width: float, height: float, angle: float
) -> None:
    image = np.full((*shape, 3), 7, np.uint8)
    assert (
        RotatedRect(x, y, width, height, angle).extract(image, 16, beyond=cv2.BORDER_REPLICATE) == 7
    ).all()


def test_around_landmarks_it_is_square_and_upright_by_the_eyes(face: Face) -> None:
    region = RotatedRect.from_landmarks(face.landmarks)
    left, top, right, bottom = face.box
    assert (region.x, region.y) == pytest.approx(face.centre)
    assert region.width == region.height == pytest.approx(1.5 * max(right - left, bottom - top))
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    turned = RotatedRect.from_landmarks(face.landmarks @ turn.T)
    assert turned.angle == pytest.approx(region.angle + math.pi / 2, abs=1e-3)


def test_around_a_box_it_is_half_as_large_again() -> None:
    eyes = np.array([[30, 40], [50, 40]], np.float32)
    region = RotatedRect.from_detection(np.array([20, 20], np.float32), np.array([60, 70], np.float32), eyes)
    assert region == RotatedRect(40, 45, 60, 75, 0.0)
    assert RotatedRect.from_detection(eyes[0], eyes[1], eyes[::-1]).angle == pytest.approx(math.pi)
