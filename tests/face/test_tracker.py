from __future__ import annotations

import cv2
import numpy as np
import pytest

from personalive.face.tracker import FaceDetector, FaceTracker
from personalive.media.types import Image


def placed(portrait: Image, frame: tuple[int, int], *places: tuple[float, float, float]) -> Image:
    """A grey frame (width, height) with a head at each (x, y, scale); at scale 1 a face is 97 pixels."""
    canvas = np.full((frame[1], frame[0], 3), 128, np.uint8)
    head = portrait[0:260, 95:355]
    for x, y, scale in places:
        small = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = round(y - 125 * scale), round(x - 130 * scale)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def test_no_face_is_none(detector: FaceDetector) -> None:
    grey = np.full((240, 320, 3), 128, np.uint8)
    assert detector.dominant(grey) is None
    assert detector.detect(grey) == []
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    assert detector.dominant(noise) is None
    assert detector.dominant(np.zeros((16, 16, 3), np.uint8)) is None


@pytest.mark.parametrize(("x", "y"), [(300, 200), (1000, 600), (1780, 980)])
def test_a_far_face_is_found_wherever_it_is(
    portrait: Image, detector: FaceDetector, x: float, y: float
) -> None:
    frame = placed(portrait, (1920, 1080), (x, y, 0.5))
    face = detector.dominant(frame)
    assert face is not None
    assert face.centre == pytest.approx((x, y), abs=8)
    assert face.size == pytest.approx(48, rel=0.15)


def test_a_tiny_image_of_a_face_is_enough(portrait: Image, detector: FaceDetector) -> None:
    assert detector.dominant(cv2.resize(portrait[60:190, 160:290], (48, 48)).astype(np.uint8)) is not None


def test_of_several_faces_the_largest_comes_first(portrait: Image, detector: FaceDetector) -> None:
    frame = placed(portrait, (640, 400), (130, 200, 0.95), (480, 180, 1.2))
    faces = detector.detect(frame)
    assert len(faces) == 2
    assert faces[0].centre[0] == pytest.approx(480, abs=12)
    dominant = detector.dominant(frame)
    assert dominant is not None
    assert dominant.centre == faces[0].centre


def test_the_face_followed_first_is_kept(portrait: Image) -> None:
    with FaceTracker() as tracker:
        for _ in range(5):
            face = tracker.track(placed(portrait, (1000, 500), (250, 250, 0.9)))
            assert face is not None
        for _ in range(10):
            face = tracker.track(placed(portrait, (1000, 500), (250, 250, 0.9), (700, 250, 1.4)))
            assert face is not None
            assert face.centre[0] == pytest.approx(250, abs=15)


def test_a_far_face_is_tracked_without_a_break(portrait: Image) -> None:
    with FaceTracker() as tracker:
        for k in range(12):
            x = 900 + 6 * k
            face = tracker.track(placed(portrait, (1920, 1080), (x, 500, 0.5)))
            assert face is not None
            assert face.centre[0] == pytest.approx(x, abs=10)


def test_a_face_that_comes_near_leaves_its_window(portrait: Image) -> None:
    with FaceTracker() as tracker:
        for k in range(30):
            scale = 0.4 + 0.08 * k
            face = tracker.track(placed(portrait, (1280, 960), (640, 450, scale)))
            assert face is not None
            assert face.size == pytest.approx(97 * scale, rel=0.2)


def test_a_lost_face_is_none_and_is_found_again(portrait: Image) -> None:
    empty = np.full((500, 700, 3), 128, np.uint8)
    with FaceTracker() as tracker:
        assert tracker.track(placed(portrait, (700, 500), (350, 250, 1.0))) is not None
        assert [tracker.track(empty) for _ in range(12)] == [None] * 12
        found = [tracker.track(placed(portrait, (700, 500), (300, 250, 1.0))) for _ in range(3)]
        assert found[-1] is not None


def test_another_frame_size_starts_the_search_anew(portrait: Image) -> None:
    with FaceTracker() as tracker:
        assert tracker.track(placed(portrait, (1920, 1080), (300, 200, 0.5))) is not None
        face = tracker.track(portrait)
        assert face is not None
        assert face.centre == pytest.approx((225, 125), abs=8)
        tracker.reset()
        assert tracker.track(portrait) is not None
        tracker.close()
        tracker.close()
