from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.face.face import Face
from personalive.face.tracker import FaceDetector
from personalive.media.types import Image
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.eyes import build_eye, close_lid_margins
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.warp import LayeredPortrait

UPPER = np.array([[0.0, 10.0], [5.0, 12.0], [10.0, 10.0]])
LOWER = np.array([[0.0, 8.0], [5.0, 4.0], [10.0, 8.0]])


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_lids_close_steadily(one: float, other: float) -> None:
    less, more = sorted((one, other))
    gaps = []
    for closure in (less, more):
        upper, lower = close_lid_margins(UPPER, LOWER, closure)
        gaps.append(upper[:, 1] - lower[:, 1])
    assert (gaps[0] >= gaps[1] - 1e-9).all()


def test_lids_rest_meet_and_open() -> None:
    upper, lower = close_lid_margins(UPPER, LOWER, 0.0)
    assert np.array_equal(upper, UPPER)
    assert np.array_equal(lower, LOWER)
    upper, lower = close_lid_margins(UPPER, LOWER, 1.0)
    assert upper == pytest.approx(lower)
    assert (lower[:, 1] - LOWER[:, 1] < 0.3 * (UPPER - LOWER)[:, 1]).all(), (
        "the upper lid goes most of the way"
    )
    upper, lower = close_lid_margins(UPPER, LOWER, -1.0)
    assert (upper[:, 1] > UPPER[:, 1]).all()
    assert np.array_equal(lower, LOWER)


def found_after(portrait: LayeredPortrait, detector: FaceDetector, motion: PortraitMotion) -> Face:
    found = detector.detect_dominant(portrait.draw(motion))
    assert found is not None
    return found


def test_the_detector_sees_what_the_lids_do(sample_portrait: LayeredPortrait, detector: FaceDetector) -> None:
    blinks, openings = [], []
    for closure in (-1.0, 0.0, 0.5, 1.0):
        found = found_after(sample_portrait, detector, PortraitMotion(closure=np.full(2, closure)))
        blinks.append([found.score(eye.blink) for eye in mesh.EYES])
        openings.append(
            [np.linalg.norm(found.landmarks[e.upper] - found.landmarks[e.lower], axis=1).mean() for e in mesh.EYES]
        )  # fmt: skip
    blink, opening = np.array(blinks), np.array(openings)
    assert blink[3].min() >= 0.5
    assert (blink[1] < 0.2).all()
    assert (blink[1] < blink[2]).all()
    assert (blink[2] < blink[3]).all()
    assert (np.diff(opening, axis=0) < 0).all(), "each wider open than the next"


def test_each_eye_shuts_alone(sample_portrait: LayeredPortrait, sample: Image) -> None:
    for index, eye in enumerate(mesh.EYES):
        closure = np.zeros(2)
        closure[index] = 1.0
        changed = cv2.absdiff(sample_portrait.draw(PortraitMotion(closure=closure)), sample).max(axis=2)
        other = mesh.EYES[1 - index]
        mine, theirs = (sample_portrait.landmarks[e.iris[0], :2].round().astype(int) for e in (eye, other))
        assert changed[mine[1] - 4 : mine[1] + 5, mine[0] - 4 : mine[0] + 5].mean() > 10
        assert changed[theirs[1] - 8 : theirs[1] + 9, theirs[0] - 14 : theirs[0] + 15].max() == 0
        assert changed[350:].max() == 0


@pytest.mark.parametrize("gaze", [(0.12, 0), (-0.12, 0), (0, 0.1), (0, -0.1), (0.1, 0.08)])
def test_the_irises_go_where_they_are_sent(
    sample_portrait: LayeredPortrait, sample_face: Face, detector: FaceDetector, gaze: tuple[float, float]
) -> None:
    found = found_after(sample_portrait, detector, PortraitMotion(gaze=np.array([gaze, gaze])))
    irises = [eye.iris[0] for eye in mesh.EYES]
    travelled = (found.landmarks - sample_face.landmarks)[irises, :2].mean(0)
    for axis, asked in enumerate((gaze[0], -gaze[1])):
        if asked:
            width = sample_portrait.eyes[0].width
            assert 0.2 < travelled[axis] / (asked * width) < 2
        else:
            assert abs(travelled[axis]) < 1.0


def test_gaze_changes_nothing_outside_the_openings(sample_portrait: LayeredPortrait, sample: Image) -> None:
    drawn = sample_portrait.draw(PortraitMotion(gaze=np.full((2, 2), 0.1)))
    changed = cv2.absdiff(drawn, sample).max(axis=2) > 0
    mask = np.zeros((512, 512), np.uint8)
    for eye in mesh.EYES:
        cv2.fillPoly(mask, [sample_portrait.landmarks[eye.ring, :2].round().astype(np.int32)], (1,))
    assert changed.sum() > 100
    assert not changed[cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0].any()


def test_layers_hold_the_eye_and_its_closed_twin(sample_portrait: LayeredPortrait) -> None:
    for layers in sample_portrait.eyes:
        assert layers.eyeball.shape == layers.closed.shape == (layers.region.height, layers.region.width, 3)
        iris = (layers.iris - [layers.region.left, layers.region.top]).round().astype(int)
        pupil = layers.eyeball[iris[1], iris[0]].mean()
        lid = layers.closed[iris[1], iris[0]].mean()
        assert lid > pupil + 20, "skin where the pupil was"
        assert 3 < layers.iris_radius < layers.width


@pytest.mark.parametrize("offset", [(-95, 0), (95, 0), (0, 70), (0, -70), (300, 0), (-300, -300)])
def test_an_eye_outside_the_picture_is_no_error(
    sample: Image, sample_face: Face, offset: tuple[float, float]
) -> None:
    small = np.asarray(cv2.resize(sample, (128, 128), interpolation=cv2.INTER_AREA), np.uint8)
    landmarks = sample_face.landmarks[:, :2] / np.float32(4) + np.array(offset, np.float32)
    for eye in mesh.EYES:
        layers = build_eye(small, landmarks, eye)
        canvas = small.copy()
        layers.draw(canvas, landmarks, landmarks, 1.0, np.array([1, 1], np.float32))
        assert canvas.shape == small.shape
