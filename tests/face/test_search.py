from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.face.search import _copy, _corners, _sides
from personalive.face.tracker import FaceDetector
from personalive.media.types import Image

SHARES = (0.6, 0.35, 0.2, 0.11, 0.062)


@settings(max_examples=6, deadline=None)
@given(place=st.tuples(st.floats(0, 1), st.floats(0, 1)), share=st.floats(0.01, 0.05))
def test_a_small_face_is_found_anywhere_in_a_large_picture(
    portrait: Image, detector: FaceDetector, place: tuple[float, float], share: float
) -> None:
    frame = np.full((3000, 5000, 3), 128, np.uint8)
    scale = share * 5000 / 90  # of the portrait's 400 pixels, the face has 90
    small = cv2.resize(portrait[:400, :400], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = (
        round(at * (length - small.shape[0])) for at, length in zip(place, (3000, 5000), strict=True)
    )
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    face = detector.detect_dominant(frame)
    assert face is not None
    own = detector.detect_dominant(portrait[:400, :400])
    assert own is not None
    expected = own.centre[0] * scale + left, own.centre[1] * scale + top
    assert face.centre == pytest.approx(expected, abs=0.2 * share * 5000)
    assert face.size == pytest.approx(own.size * scale, rel=0.25)


@given(st.integers(16, 16_384), st.integers(16, 16_384))
def test_a_larger_picture_has_no_more_windows(width: int, height: int) -> None:
    image = np.zeros((height // 8 + 1, width // 8 + 1, 3), np.uint8)
    copies = [_copy(image, (width, height), side) for side in _sides(max(width, height), SHARES)]
    assert sum(len(list(_corners(copy))) for copy in copies) < 1000
    for copy in copies:
        seen = np.zeros(copy.shape[:2], bool)
        for left, top in _corners(copy):
            seen[top : top + 128, left : left + 128] = True
        assert seen.all()


@given(st.integers(1, 20_000))
def test_no_window_shows_what_another_has_shown(longest: int) -> None:
    sides = _sides(longest, SHARES)
    assert sides == sorted(set(sides), reverse=True)
    assert all(64 <= side < longest for side in sides)
