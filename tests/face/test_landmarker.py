"""Landmarks, and that ours are MediaPipe's: the same networks in its own graph serve as the reference."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.mediapipe_landmarker import MediaPipeLandmarker
from personalive.face.blendshapes import BlendshapeScorer
from personalive.face.landmarker import FaceLandmarker
from personalive.face.rotated_rect import RotatedRect
from personalive.face.tracker import FaceTracker
from personalive.media import VideoReader
from personalive.media.types import Image

PROGRAM = """
import numpy as np
from personalive.face.tracker import FaceDetector, FaceTracker
detector, tracker = FaceDetector(), FaceTracker()
frame = np.zeros((120, 160, 3), np.uint8)
print(detector.detect(frame), tracker.track(frame), tracker.track(frame))
{ending}
"""


@pytest.fixture(scope="module")
def landmarker() -> Iterator[FaceLandmarker]:
    landmarker = FaceLandmarker()
    yield landmarker
    landmarker.close()
    landmarker.close()


@pytest.fixture(scope="module")
def clip() -> list[Image]:
    """The shipped driving frames, every fifth: so far apart that a follower has to move."""
    with VideoReader(Path(str(files("personalive") / "samples" / "driving.mp4"))) as reader:
        return [frame.image for frame in reader][::5]


def distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(ours[:, :2] - theirs[:, :2], axis=1))


def test_landmarks_lie_in_the_images_pixels(portrait: Image, landmarker: FaceLandmarker) -> None:
    (face,) = landmarker.detect(portrait)
    (shifted,) = landmarker.detect(portrait[:300, 100:400])
    assert face.landmarks.shape == (478, 3)
    assert face.landmarks.dtype == np.float32
    assert face.centre == pytest.approx((225, 125), abs=6)
    assert shifted.centre == pytest.approx((face.centre[0] - 100, face.centre[1]), abs=4)


def test_a_read_only_or_sliced_image_is_fine(portrait: Image, landmarker: FaceLandmarker) -> None:
    assert len(landmarker.detect(portrait[:, ::-1])) == 1
    assert len(landmarker.detect(portrait[::2, ::2])) == 1


def test_a_region_without_a_face_has_none(portrait: Image, landmarker: FaceLandmarker) -> None:
    (face,) = landmarker.detect(portrait)
    region = RotatedRect.from_landmarks(face.landmarks)
    again = landmarker.detect_in_region(portrait, region)
    assert again is not None
    assert distances(again.landmarks, face.landmarks).mean() < 2
    assert landmarker.detect_in_region(portrait, RotatedRect(60, 450, 120, 120)) is None
    assert landmarker.detect_in_region(np.full_like(portrait, 128), region) is None
    assert landmarker.detect_in_region(portrait, RotatedRect(-5000, 9000, 150, 150)) is None


def test_stills_are_as_mediapipe_finds_them(
    portrait: Image, landmarker: FaceLandmarker, clip: list[Image]
) -> None:
    """The graph's arithmetic is the same; what differs is rounding in OpenCV's and XNNPACK's versions."""
    reference, scorer = MediaPipeLandmarker(video=False), BlendshapeScorer()
    two = np.hstack([portrait[:300, 80:380], cv2.resize(portrait[:300, 80:380], (450, 450))[:300]])
    tilted = cv2.warpAffine(portrait, cv2.getRotationMatrix2D((225, 125), 35, 1), (512, 512))
    pictures = [
        portrait,
        np.asarray(two, np.uint8),
        np.asarray(tilted, np.uint8),
        np.rot90(portrait),
        clip[3],
    ]
    for picture in pictures:
        ours, theirs = landmarker.detect(picture), reference.find(picture)
        assert len(ours) == len(theirs)
        for mesh, face in zip(ours, theirs, strict=True):
            away = distances(mesh.landmarks, face.landmarks)
            assert away.mean() < 0.003 * face.size
            assert away.max() < 0.02 * face.size
            assert np.abs(mesh.landmarks[:, 2] - face.landmarks[:, 2]).max() < 0.05 * face.size
            assert np.abs(scorer.score(mesh).blendshapes - face.blendshapes).max() < 0.05
    assert len(landmarker.detect(pictures[1])) == 2
    reference.close()
    scorer.close()


def test_depth_does_not_depend_on_the_frames_proportions(portrait: Image, landmarker: FaceLandmarker) -> None:
    """MediaPipe's does where a head is tilted."""
    tilted = np.asarray(
        cv2.warpAffine(portrait, cv2.getRotationMatrix2D((225, 125), 40, 1), (512, 512)), np.uint8
    )
    region = RotatedRect(225, 125, 220, 220, np.radians(-40))
    square = landmarker.detect_in_region(tilted, region)
    wide = landmarker.detect_in_region(np.hstack([tilted, np.zeros((512, 700, 3), np.uint8)]), region)
    assert square is not None
    assert wide is not None
    assert np.allclose(square.landmarks, wide.landmarks, atol=1e-3)


def test_a_video_is_followed_as_mediapipe_follows_it(clip: list[Image]) -> None:
    reference = MediaPipeLandmarker(video=True)
    with FaceTracker() as tracker:
        away, scores = [], []
        for frame in clip:
            face, (theirs,) = tracker.track(frame), reference.find(frame)
            assert face is not None
            away.append(distances(face.landmarks, theirs.landmarks))
            scores.append(np.abs(face.blendshapes - theirs.blendshapes))
    reference.close()
    assert np.mean(away) < 0.2  # pixels of 512
    assert np.max(away) < 2
    assert np.max(scores) < 0.05


@pytest.mark.parametrize("ending", ["", "detector.close(); tracker.close()", "raise SystemExit(0)"])
def test_nothing_is_printed_and_the_interpreter_ends_cleanly(ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(ending=ending)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] None None\n", "")
