from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.face.face import Face
from personalive.face.placement import compute_overlap, place_canonical_face
from personalive.face.pose import fit_head_pose
from personalive.face.tracker import FaceDetector
from personalive.media.types import Image

SIDES = st.floats(20, 900)


@given(st.floats(0, 500), st.floats(0, 500), SIDES, st.floats(0.8, 1.3))
def test_a_placed_face_fills_its_box_and_looks_ahead(x: float, y: float, width: float, tall: float) -> None:
    box = (x, y, x + width, y + width * tall)
    placed = place_canonical_face(box)
    assert placed.box == pytest.approx(box, abs=0.01)
    assert np.abs(fit_head_pose(placed.landmarks).angles).max() < 8
    for eye, iris in (((33, 133), 468), ((362, 263), 473)):
        low, high = sorted(placed.landmarks[list(eye), 0])
        assert low < placed.landmarks[iris, 0] < high


def test_a_face_in_the_box_is_recognized(portrait: Image, face: Face, detector: FaceDetector) -> None:
    left, top, right, bottom = face.box
    found, recognized = detector.find_in_box(portrait, (left - 10, top - 15, right + 5, bottom + 5))
    assert recognized
    assert compute_overlap(found.box, face.box) > 0.85


def test_nothing_in_the_box_is_the_canonical_face(detector: FaceDetector) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    found, recognized = detector.find_in_box(noise, (80, 80, 200, 220))
    assert not recognized
    assert found.box == pytest.approx((80, 80, 200, 220), abs=0.01)
