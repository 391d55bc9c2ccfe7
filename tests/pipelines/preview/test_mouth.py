from __future__ import annotations

import cv2
import numpy as np
import pytest

from personalive.face.face import Face, Float
from personalive.face.pose import fit_head_pose
from personalive.face.tracker import FaceDetector
from personalive.media.types import Image
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.mouth import build_mouth
from personalive.pipelines.preview.rig import combine_expressions
from personalive.pipelines.preview.warp import LayeredPortrait


def lip_gap(landmarks: Float) -> float:
    return float(np.linalg.norm(landmarks[13, :2] - landmarks[14, :2]))


def shut(landmarks: Float) -> Float:
    """The same with the inner lips pressed together."""
    closed = landmarks.copy()
    middle = (closed[mesh.UPPER_INNER_LIP] + closed[mesh.LOWER_INNER_LIP]) / 2
    closed[mesh.UPPER_INNER_LIP] = closed[mesh.LOWER_INNER_LIP] = middle
    return closed


@pytest.mark.parametrize("amount", [0.3, 0.6, 1.0])
def test_an_opened_jaw_is_seen_as_opened_as_asked(
    sample_portrait: LayeredPortrait, sample_face: Face, detector: FaceDetector, amount: float
) -> None:
    motion = PortraitMotion(shape=combine_expressions({"jawOpen": amount}))
    found = detector.detect_dominant(sample_portrait.draw(motion))
    assert found is not None
    asked = lip_gap(sample_portrait.compute_target(motion).points) - lip_gap(sample_face.landmarks)
    assert lip_gap(found.landmarks) - lip_gap(sample_face.landmarks) == pytest.approx(asked, rel=0.25)
    assert found.score("jawOpen") > sample_face.score("jawOpen") + 0.03


def test_a_wide_open_mouth_is_dark_inside_and_keeps_its_upper_teeth(
    sample_portrait: LayeredPortrait, sample: Image
) -> None:
    motion = PortraitMotion(shape=combine_expressions({"jawOpen": 1.0}))
    drawn, points = sample_portrait.draw(motion), sample_portrait.compute_target(motion).points
    upper, lower = points[13, :2], points[14, :2]
    x, y = ((upper + lower) / 2).round().astype(int)
    cheek = points[205, :2].round().astype(int)
    inside = drawn[y - 3 : y + 4, x - 8 : x + 9].mean()
    assert inside < 0.6 * drawn[cheek[1], cheek[0]].mean()
    teeth_before = sample[int(upper[1]) + 2 : int(upper[1]) + 8, x - 8 : x + 9].astype(int)
    teeth_after = drawn[int(upper[1]) + 2 : int(upper[1]) + 8, x - 8 : x + 9].astype(int)
    assert np.abs(teeth_before - teeth_after).mean() < 25, "they belong to the skull"


def test_only_the_opening_is_drawn(sample_portrait: LayeredPortrait) -> None:
    shape = combine_expressions({"jawOpen": 0.8})
    points = sample_portrait.compute_target(PortraitMotion(shape=shape)).points
    canvas = np.full((512, 512, 3), 200, np.uint8)
    flat = np.ascontiguousarray(points[:, :2])
    sample_portrait.mouth.draw(canvas, flat, sample_portrait.pose, shape)
    changed = (canvas != 200).any(axis=2)
    mask = np.zeros((512, 512), np.uint8)
    cv2.fillPoly(mask, [flat[mesh.mouth_ring()].round().astype(np.int32)], (1,))
    assert changed[cv2.erode(mask, np.ones((5, 5), np.uint8)) > 0].mean() > 0.95
    assert not changed[cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0].any()


def test_closed_lips_and_lips_in_their_place_draw_nothing(sample_portrait: LayeredPortrait) -> None:
    canvas = np.full((512, 512, 3), 200, np.uint8)
    moved = combine_expressions({"mouthSmileLeft": 1.0, "jawOpen": 0.5})
    closed = np.ascontiguousarray(shut(sample_portrait.landmarks)[:, :2])
    sample_portrait.mouth.draw(canvas, closed, sample_portrait.pose, moved)
    assert (canvas == 200).all()
    still = np.ascontiguousarray(sample_portrait.landmarks[:, :2])
    sample_portrait.mouth.draw(canvas, still, sample_portrait.pose, np.zeros((478, 3)))
    assert (canvas == 200).all()
    sample_portrait.mouth.draw(canvas, still, sample_portrait.pose, moved)
    assert (canvas != 200).any()


def test_a_shut_mouth_gets_teeth_and_a_cavity_of_its_own(sample: Image, sample_face: Face) -> None:
    landmarks = shut(sample_face.landmarks)
    pose = fit_head_pose(landmarks)
    layers = build_mouth(sample, np.ascontiguousarray(landmarks[:, :2]), pose, pose.to_head(landmarks))
    assert layers.upper.shape == layers.lower.shape
    assert layers.upper.shape[2] == 4
    assert layers.cavity.shape == (*layers.upper.shape[:2], 3)
    for teeth in (layers.upper, layers.lower):
        solid = teeth[..., 3] > 250
        assert solid.mean() > 0.01
        assert not solid.all()
        assert np.percentile(teeth[solid][:, :3].mean(axis=1), 90) > 2 * np.median(layers.cavity.mean(axis=2))


@pytest.mark.parametrize("offset", [(-95, 0), (95, 0), (0, 70), (0, -70), (300, 0), (-300, -300)])
def test_a_mouth_outside_the_picture_is_no_error(
    sample: Image, sample_face: Face, offset: tuple[float, float]
) -> None:
    small = np.asarray(cv2.resize(sample, (128, 128), interpolation=cv2.INTER_AREA), np.uint8)
    landmarks = sample_face.landmarks / np.float32(4) + np.array([*offset, 0], np.float32)
    pose = fit_head_pose(landmarks)
    flat = np.ascontiguousarray(landmarks[:, :2])
    layers = build_mouth(small, flat, pose, pose.to_head(landmarks))
    canvas = small.copy()
    layers.draw(canvas, flat, pose, combine_expressions({"jawOpen": 1.0}))
    assert canvas.shape == small.shape
