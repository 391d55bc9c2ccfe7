from __future__ import annotations

import numpy as np
import pytest

from personalive.face.face import BLENDSHAPE_INDEX, BLENDSHAPES, LANDMARK_COUNT, Face, select_dominant_face


def square(x: float, y: float, size: float) -> Face:
    """A face whose landmarks fill a square of `size` centred at (x, y)."""
    points = np.zeros((LANDMARK_COUNT, 3), np.float32)
    points[:, 0] = np.linspace(x - size / 2, x + size / 2, LANDMARK_COUNT)
    points[:, 1] = np.linspace(y - size / 2, y + size / 2, LANDMARK_COUNT)
    return Face(points, np.zeros(len(BLENDSHAPES), np.float32))


def test_box_centre_and_size() -> None:
    face = square(100, 50, 40)
    assert face.box == pytest.approx((80, 30, 120, 70))
    assert face.centre == pytest.approx((100, 50))
    assert face.size == pytest.approx(40)


def test_scaled_and_shifted() -> None:
    face = square(100, 50, 40).scale(2.0, (10, -5))
    assert face.centre == pytest.approx((210, 95))
    assert face.size == pytest.approx(80)


def test_scores_are_means_of_named_shapes() -> None:
    face = square(0, 0, 1)
    face.blendshapes[BLENDSHAPE_INDEX["eyeBlinkLeft"]] = 1.0
    assert len(BLENDSHAPES) == 52
    assert face.score("eyeBlinkLeft") == 1.0
    assert face.score("eyeBlinkLeft", "eyeBlinkRight") == 0.5
    with pytest.raises(KeyError):
        face.score("eyeBlinkMiddle")


def test_large_and_central_wins() -> None:
    small, large = square(320, 240, 80), square(200, 240, 160)
    assert select_dominant_face([small, large], (640, 480)) is large
    corner, middle = square(40, 40, 80), square(320, 240, 78)
    assert select_dominant_face([corner, middle], (640, 480)) is middle
    assert select_dominant_face([], (640, 480)) is None


def test_the_followed_face_is_kept_although_a_larger_one_comes() -> None:
    followed = square(200, 240, 80)
    now = square(210, 240, 80)
    passer_by = square(400, 240, 200)
    assert select_dominant_face([passer_by, now], (640, 480), followed) is now
    assert select_dominant_face([passer_by], (640, 480), followed) is passer_by
