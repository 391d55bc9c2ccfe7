from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.face import box_detector as box_detector_module
from personalive.face.box_detector import FaceBoxDetector
from personalive.face.face import Face, Float
from personalive.media.types import Image


@pytest.fixture(scope="module")
def box_detector() -> Iterator[FaceBoxDetector]:
    detector = FaceBoxDetector()
    yield detector
    detector.close()


def test_anchors_are_two_on_each_fine_cell_and_six_on_each_coarse_one() -> None:
    anchors = box_detector_module._anchors()
    assert anchors.shape == (896, 2)
    assert anchors[:4] == pytest.approx(np.array([[1, 1], [1, 1], [3, 1], [3, 1]]) / 32)
    assert anchors[511] == pytest.approx([31 / 32, 31 / 32])
    assert anchors[512:519] == pytest.approx(np.array([[1, 1]] * 6 + [[3, 1]]) / 16)


def test_raw_outputs_are_pixels_from_the_anchor() -> None:
    raw = np.zeros((896, 16), np.float32)
    raw[0] = [12.8, 0, 25.6, 12.8, *([0] * 10), -12.8, 12.8]
    decoded, keypoints = box_detector_module._decode_boxes(raw)
    x, y = 1 / 32 + 0.1, 1 / 32
    assert decoded[0] == pytest.approx([x - 0.1, y - 0.05, x + 0.1, y + 0.05])
    assert keypoints[0, 5] == pytest.approx([1 / 32 - 0.1, 1 / 32 + 0.1])
    assert keypoints[0, 0] == pytest.approx([1 / 32, 1 / 32])


def test_the_box_and_its_points_lie_on_the_face(
    portrait: Image, box_detector: FaceBoxDetector, face: Face
) -> None:
    (box,) = box_detector.detect(portrait)
    left, _, right, bottom = face.box
    assert box.low[0] == pytest.approx(left, abs=12)
    assert box.high == pytest.approx([right, bottom], abs=12)
    right_eye, left_eye, nose, mouth = box.keypoints[:4]
    assert right_eye == pytest.approx(face.landmarks[468, :2], abs=6)
    assert left_eye == pytest.approx(face.landmarks[473, :2], abs=6)
    assert nose == pytest.approx(face.landmarks[1, :2], abs=8)
    assert mouth == pytest.approx(face.landmarks[13, :2], abs=8)
    assert box_detector.highest_score(portrait) == box.score > 0.7


@pytest.mark.parametrize(("width", "height"), [(700, 300), (300, 700)])
def test_places_are_of_the_picture_whatever_its_shape(
    portrait: Image, box_detector: FaceBoxDetector, width: int, height: int
) -> None:
    canvas = np.full((height, width, 3), 90, np.uint8)
    canvas[20:280, 20:280] = portrait[:260, 95:355]
    (box,) = box_detector.detect(canvas)
    assert (box.low + box.high) / 2 == pytest.approx([150, 145], abs=15)


def test_without_a_face_the_score_is_0(box_detector: FaceBoxDetector) -> None:
    assert box_detector.highest_score(np.full((90, 160, 3), 128, np.uint8)) == 0.0


def test_two_faces_are_two_boxes(portrait: Image, box_detector: FaceBoxDetector) -> None:
    head = portrait[:260, 95:355]
    found = box_detector.detect(np.asarray(np.hstack([head, cv2.resize(head, (260, 260))]), np.uint8))
    assert sorted(float(box.low[0]) // 260 for box in found) == [0, 1]
    assert found[0].score >= found[1].score


unit = st.floats(0, 1, width=32)


@given(
    proposals=st.lists(
        st.tuples(unit, unit, unit, unit, st.floats(0.5, 1, width=32)), min_size=1, max_size=12
    )
)
def test_merging_keeps_the_best_scores_and_leaves_no_overlap_of_the_best(
    proposals: list[tuple[float, float, float, float, float]],
) -> None:
    values = np.array(proposals, np.float32)
    low, sides, scores = values[:, :2], values[:, 2:4], values[:, 4]
    corners: Float = np.concatenate([low, low + sides], axis=1)
    points = np.repeat(low[:, None], 6, axis=1)
    merged = box_detector_module._merge_boxes(corners, points, scores)
    assert 1 <= len(merged) <= len(proposals)
    kept = [score for *_, score in merged]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == scores.max()
    for box, keypoints, _ in merged:
        assert np.isfinite(box).all()
        assert (box[:2] >= corners[:, :2].min(0) - 1e-5).all()
        assert (box[2:] <= corners[:, 2:].max(0) + 1e-5).all()
        assert keypoints == pytest.approx(np.repeat(box[None, :2], 6, axis=0), abs=1e-5)


def test_the_mean_of_an_overlapping_set_is_weighted_by_score() -> None:
    corners = np.array([[0, 0, 1, 1], [0, 0, 1, 0.8], [3, 3, 4, 4]], np.float32)
    points = np.zeros((3, 6, 2), np.float32)
    (first, _, best), (second, _, _) = box_detector_module._merge_boxes(
        corners, points, np.array([0.9, 0.6, 0.7], np.float32)
    )
    assert best == pytest.approx(0.9)
    assert first == pytest.approx([0, 0, 1, (0.9 + 0.6 * 0.8) / 1.5])
    assert second == pytest.approx([3, 3, 4, 4])
