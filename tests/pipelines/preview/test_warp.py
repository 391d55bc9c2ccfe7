from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.following import _outside_head
from personalive.face.face import Face
from personalive.face.pose import Double, fit_head_pose, rotation_matrix
from personalive.face.tracker import FaceDetector
from personalive.media.types import Image
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.rig import combine_expressions
from personalive.pipelines.preview.warp import LayeredPortrait

STRONG = [(0, 0.6, 0), (0, -0.6, 0), (0.6, 0, 0), (-0.6, 0, 0), (0, 0, 0.6), (0, 0, -0.6), (0.4, -0.4, 0.4)]
MODERATE = {
    "yaw": PortraitMotion(rotation=rotation_matrix(np.array([0, 0.2, 0]))),
    "other yaw": PortraitMotion(rotation=rotation_matrix(np.array([0, -0.25, 0]))),
    "pitch": PortraitMotion(rotation=rotation_matrix(np.array([0.2, 0, 0]))),
    "other pitch": PortraitMotion(rotation=rotation_matrix(np.array([-0.2, 0, 0]))),
    "roll": PortraitMotion(rotation=rotation_matrix(np.array([0, 0, 0.2]))),
    "all three": PortraitMotion(rotation=rotation_matrix(np.array([0.1, 0.15, -0.15]))),
    "shift": PortraitMotion(translation=np.array([0.8, 0.5, 0.0]), scale=1.05),
    "speech": PortraitMotion(shape=combine_expressions({"jawOpen": 0.4})),
    "brows": PortraitMotion(shape=combine_expressions({"browInnerUp": 0.7})),
    "blink": PortraitMotion(closure=np.array([1.0, 1.0])),
    "speech while turning": PortraitMotion(
        rotation=rotation_matrix(np.array([0, 0.15, 0.1])), shape=combine_expressions({"jawOpen": 0.3})
    ),
}


@st.composite
def motions(draw: st.DrawFn) -> PortraitMotion:
    """Any motion, absurd ones too."""

    def numbers(limit: float, count: int) -> Double:
        return np.array(draw(st.lists(st.floats(-limit, limit), min_size=count, max_size=count)))

    axis = numbers(1.0, 3)
    length = float(np.linalg.norm(axis))
    angle = draw(st.floats(0, np.pi))
    jitter = np.random.default_rng(draw(st.integers(0, 1000))).uniform(-1, 1, (478, 3))
    return PortraitMotion(
        rotation=rotation_matrix(axis * (angle / length if length > 1e-6 else 0.0)),
        translation=numbers(100.0, 3),
        scale=draw(st.floats(0.0, 10.0)),
        shape=jitter * draw(st.sampled_from([0.0, 0.2, 1.0, 5.0])),
        closure=numbers(3.0, 2),
        gaze=numbers(3.0, 4).reshape(2, 2),
    )


@pytest.fixture(scope="module")
def still(sample: Image, sample_face: Face) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Pixels that are surely background or body."""
    return _outside_head(sample_face, sample)


@pytest.fixture(scope="module")
def odd(sample: Image, detector: FaceDetector) -> LayeredPortrait:
    """A portrait of a size that nothing divides."""
    image = np.asarray(cv2.resize(sample, (237, 253), interpolation=cv2.INTER_AREA), np.uint8)
    face = detector.detect_dominant(image)
    assert face is not None
    return LayeredPortrait.build(image, face.landmarks)


def test_no_motion_gives_the_picture_bit_for_bit(sample: Image, sample_portrait: LayeredPortrait) -> None:
    drawn = sample_portrait.draw(PortraitMotion())
    assert np.array_equal(drawn, sample)
    drawn[:] = 0
    assert np.array_equal(sample_portrait.draw(PortraitMotion()), sample), "what is drawn is the caller's own"
    assert sample_portrait.compute_target(PortraitMotion()).points == pytest.approx(
        sample_portrait.landmarks, abs=1e-2
    )


def test_a_picture_of_odd_size_stays_itself_too(odd: LayeredPortrait) -> None:
    assert np.array_equal(odd.draw(PortraitMotion()), odd.image)


@pytest.mark.parametrize("shift", [(0, 0), (1.5, 1), (-5, -5)])
@pytest.mark.parametrize("turn", STRONG)
def test_the_background_stays(
    sample: Image,
    sample_portrait: LayeredPortrait,
    still: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    turn: tuple[float, float, float],
    shift: tuple[float, float],
) -> None:
    motion = PortraitMotion(
        rotation=rotation_matrix(np.array(turn)),
        translation=np.array([*shift, 0.0]),
        shape=combine_expressions({"jawOpen": 1.0}),
    )
    difference = cv2.absdiff(sample_portrait.draw(motion), sample).max(axis=2)
    assert still.mean() > 0.1
    assert difference[still].max() <= 1
    assert difference[~still].mean() > 5, "the head does move"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(motions())
def test_any_motion_gives_a_picture(
    sample: Image, sample_portrait: LayeredPortrait, motion: PortraitMotion
) -> None:
    target = sample_portrait.compute_target(motion)
    assert target.points.shape == (478, 3)
    assert target.open_lid_points.shape == (478, 2)
    assert np.isfinite(target.points).all()
    drawn = sample_portrait.draw(motion)
    assert drawn.dtype == np.uint8
    assert drawn.shape == sample.shape
    assert not np.shares_memory(drawn, sample_portrait.image)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(motions())
def test_any_motion_gives_a_picture_of_odd_size(odd: LayeredPortrait, motion: PortraitMotion) -> None:
    before = odd.image.copy()
    drawn = odd.draw(motion)
    assert drawn.shape == before.shape
    assert drawn.dtype == np.uint8
    assert np.array_equal(odd.image, before)


@pytest.mark.parametrize("name", MODERATE)
def test_the_face_is_found_where_the_motion_meant_it(
    sample: Image, sample_portrait: LayeredPortrait, detector: FaceDetector, name: str
) -> None:
    motion = MODERATE[name]
    drawn = sample_portrait.draw(motion)
    assert not np.array_equal(drawn, sample)
    found = detector.detect_dominant(drawn)
    assert found is not None
    target = sample_portrait.compute_target(motion).points
    off = np.linalg.norm(found.landmarks[:468, :2] - target[:468, :2], axis=1)
    assert off.mean() < 2


@pytest.mark.parametrize(("axis", "name"), [(0, "pitch"), (1, "yaw"), (2, "roll")])
def test_a_turn_is_seen_as_that_turn(
    sample_portrait: LayeredPortrait, sample_face: Face, detector: FaceDetector, axis: int, name: str
) -> None:
    asked = 10.0
    for sign in (-1, 1):
        turn = np.zeros(3)
        turn[axis] = np.radians(sign * asked)
        found = detector.detect_dominant(sample_portrait.draw(PortraitMotion(rotation=rotation_matrix(turn))))
        assert found is not None
        seen = fit_head_pose(found.landmarks).angles - fit_head_pose(sample_face.landmarks).angles
        assert 0.35 * asked < sign * seen[axis] < 1.4 * asked, name
        assert np.abs(np.delete(seen, axis)).max() < 4


def test_limits_are_approached_and_never_passed(sample_portrait: LayeredPortrait) -> None:
    own = sample_portrait.pose

    def turn_of(angle: float) -> float:
        motion = PortraitMotion(rotation=rotation_matrix(np.array([0, np.radians(angle), 0])))
        rotation = sample_portrait.compute_target(motion).pose.rotation @ own.rotation.T
        return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))

    turns = [turn_of(angle) for angle in (5, 10, 20, 40, 80, 170)]
    assert turns[:2] == pytest.approx([5, 10], abs=0.01)
    assert (np.diff(turns) > -1e-6).all()
    assert turns[-1] < 45

    def shift_of(cm: float) -> float:
        moved = sample_portrait.compute_target(PortraitMotion(translation=np.array([cm, 0.0, 0.0]))).pose
        return float((moved.translation - own.translation)[0] / own.scale)

    shifts = [shift_of(cm) for cm in (-100, -0.5, 0, 0.5, 2, 100)]
    assert shifts[1:4] == pytest.approx([-0.5, 0, 0.5], abs=1e-6)
    assert (np.diff(shifts) > 0).all()
    assert abs(shifts[0]) == pytest.approx(shifts[-1])
    assert shifts[-1] < 5


def test_lids_move_alone_and_on_their_own_side(sample_portrait: LayeredPortrait) -> None:
    still = sample_portrait.compute_target(PortraitMotion()).points
    shut = sample_portrait.compute_target(PortraitMotion(closure=np.array([1.0, 0.0]))).points
    right, left = mesh.EYES
    gap = np.linalg.norm(shut[right.upper, :2] - shut[right.lower, :2], axis=1)
    open_gap = np.linalg.norm(still[right.upper, :2] - still[right.lower, :2], axis=1)
    assert gap.max() < 0.05 * open_gap.max()
    assert shut[left.ring] == pytest.approx(still[left.ring], abs=0.05)
    mouth = mesh.mouth_ring()
    assert shut[mouth] == pytest.approx(still[mouth], abs=0.5)


def test_landmarks_are_left_as_they_were_given(sample: Image, sample_face: Face) -> None:
    given_landmarks = sample_face.landmarks.copy()
    small = np.asarray(cv2.resize(sample, (128, 128), interpolation=cv2.INTER_AREA), np.uint8)
    landmarks = given_landmarks / np.float32(4)
    kept = landmarks.copy()
    portrait = LayeredPortrait.build(small, landmarks)
    portrait.draw(MODERATE["speech while turning"])
    assert np.array_equal(landmarks, kept)
    assert portrait.landmarks[:, :2] == pytest.approx(landmarks[:, :2])


def test_a_picture_of_one_colour_stays_so_whatever_moves(sample_face: Face) -> None:
    flat = np.full((96, 96, 3), 90, np.uint8)
    portrait = LayeredPortrait.build(flat, sample_face.landmarks * np.float32(96 / 512))
    drawn = portrait.draw(PortraitMotion(rotation=rotation_matrix(np.array([0.1, 0.3, 0.1]))))
    assert cv2.absdiff(drawn, flat).max() <= 2


def test_a_face_that_fills_the_picture_moves_in_one_piece(sample: Image, sample_face: Face) -> None:
    left, top, right, bottom = (int(v) for v in sample_face.box)
    close = np.ascontiguousarray(sample[top + 25 : bottom - 25, left + 25 : right - 25])
    portrait = LayeredPortrait.build(
        close, sample_face.landmarks - np.array([left + 25, top + 25, 0], np.float32)
    )
    assert portrait.layers.is_single_layer
    assert np.array_equal(portrait.draw(PortraitMotion()), close)
    drawn = portrait.draw(PortraitMotion(rotation=rotation_matrix(np.array([0.1, 0.3, 0.1]))))
    assert cv2.absdiff(drawn, close).mean() > 3


@pytest.mark.parametrize("share", [(0.5, 1.0), (0.62, 0.9), (0.7, 1.0)])
def test_a_face_cut_off_by_the_edge_can_be_built_and_drawn(
    sample: Image, sample_face: Face, share: tuple[float, float]
) -> None:
    """Landmarks may lie outside the picture: the network guesses what the edge cuts off."""
    left, top, right, bottom = sample_face.box
    start = int(left + share[0] * (right - left))
    picture = np.ascontiguousarray(sample[int(top) - 20 : int(top + share[1] * (bottom - top)), start:])
    landmarks = sample_face.landmarks - np.array([start, int(top) - 20, 0], np.float32)
    portrait = LayeredPortrait.build(picture, landmarks)
    drawn = portrait.draw(
        PortraitMotion(
            rotation=rotation_matrix(np.array([0.1, 0.2, 0.1])),
            shape=combine_expressions({"jawOpen": 0.7}),
            closure=np.ones(2),
            gaze=np.full((2, 2), 0.1),
        )
    )
    assert drawn.shape == picture.shape
    assert np.array_equal(portrait.draw(PortraitMotion()), picture)
