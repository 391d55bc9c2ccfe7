from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.face.tracker import FaceDetector
from personalive.face.upright import find_upright_frame, turn_upright
from personalive.media.rotation import rotate_image
from personalive.media.types import Image

TURNS = st.sampled_from([0, 90, 180, 270])


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.mark.slow
def test_a_face_of_any_size_is_brought_upright(detector: FaceDetector, portrait: Image) -> None:
    @settings(max_examples=10, deadline=None)
    @given(TURNS, st.integers(180, 512), st.integers(0, 120), st.floats(-25, 25))
    def check(turn: int, side: int, margin: int, tilt: float) -> None:
        matrix = cv2.getRotationMatrix2D((225, 125), tilt, 1)
        tilted = cv2.warpAffine(portrait, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
        small = cv2.resize(tilted, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
        picture = np.pad(small, ((0, 0), (0, margin), (0, 0)), mode="edge")
        found = turn_upright(detector, rotate_image(picture, (360 - turn) % 360))
        assert found is not None
        assert found.rotation == turn
        assert np.array_equal(found.image, picture)

    check()


@settings(max_examples=8, deadline=None)
@given(st.tuples(st.integers(16, 200), st.integers(16, 200)), st.integers(0, 2**32 - 1))
def test_noise_stays_as_it_is(size: tuple[int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    with FaceDetector() as detector:
        assert turn_upright(detector, noise, reach="near") is None


def test_a_clip_is_turned_by_what_its_frames_agree_on(detector: FaceDetector, portrait: Image) -> None:
    grey = np.full_like(portrait, 128)
    lying, upside = rotate_image(portrait, 90), rotate_image(portrait, 180)
    assert find_upright_frame(detector, []) is None
    assert find_upright_frame(detector, [grey, grey]) is None
    for frames, wanted in (
        ([lying], 270),
        ([grey, lying, upside, lying], 270),
        ([lying, portrait, lying], 0),
        ([portrait], 0),
    ):
        found = find_upright_frame(detector, iter(frames))
        assert found is not None
        assert found.rotation == wanted
        assert np.array_equal(found.image, portrait)


def test_a_small_face_is_looked_for_too(detector: FaceDetector, portrait: Image) -> None:
    far = np.full((1024, 1024, 3), 128, np.uint8)
    far[600:856, 300:556] = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    found = find_upright_frame(detector, [rotate_image(far, 180)])
    assert found is not None
    assert found.rotation == 180
