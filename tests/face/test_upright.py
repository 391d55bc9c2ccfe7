from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.face.tracker import FaceDetector
from personalive.face.upright import upright, upright_frame
from personalive.media.rotation import turned
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
        found = upright(detector, turned(picture, (360 - turn) % 360))
        assert found is not None
        assert found.turn == turn
        assert np.array_equal(found.image, picture)

    check()


@settings(max_examples=8, deadline=None)
@given(st.tuples(st.integers(16, 200), st.integers(16, 200)), st.integers(0, 2**32 - 1))
def test_noise_stays_as_it_is(size: tuple[int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    with FaceDetector() as detector:
        assert upright(detector, noise, reach="near") is None


def test_a_clip_is_turned_by_what_its_frames_agree_on(detector: FaceDetector, portrait: Image) -> None:
    grey = np.full_like(portrait, 128)
    lying, upside = turned(portrait, 90), turned(portrait, 180)
    assert upright_frame(detector, []) is None
    assert upright_frame(detector, [grey, grey]) is None
    for frames, wanted in (
        ([lying], 270),
        ([grey, lying, upside, lying], 270),
        ([lying, portrait, lying], 0),
        ([portrait], 0),
    ):
        found = upright_frame(detector, iter(frames))
        assert found is not None
        assert found.turn == wanted
        assert np.array_equal(found.image, portrait)


def test_a_small_face_is_looked_for_too(detector: FaceDetector, portrait: Image) -> None:
    far = np.full((1024, 1024, 3), 128, np.uint8)
    far[600:856, 300:556] = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    found = upright_frame(detector, [turned(far, 180)])
    assert found is not None
    assert found.turn == 180
