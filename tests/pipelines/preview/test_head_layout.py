from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.face.face import Float
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.head_layout import HeadLayout, smooth_falloff

from .faces import make_face, turned


def layout_of(roll: float = 0.0, scale: float = 1.0) -> tuple[HeadLayout, Float]:
    landmarks = make_face(rotation=turned(roll=roll), scale=scale).landmarks
    return HeadLayout.from_landmarks(landmarks), landmarks


def test_an_upright_face_has_the_pictures_axes() -> None:
    layout, landmarks = layout_of()
    assert layout.across == pytest.approx([1, 0], abs=0.02)
    assert layout.down == pytest.approx([0, 1], abs=0.02)
    assert layout.width == pytest.approx(float(np.ptp(landmarks[mesh.OVAL, 0])), rel=0.02)
    low, high = landmarks[mesh.OVAL, :2].min(0), landmarks[mesh.OVAL, :2].max(0)
    assert layout.centre == pytest.approx((low + high) / 2, abs=2)
    assert layout.oval.shape == (36, 2)


@given(st.floats(-170, 170), st.floats(0.3, 3))
def test_coordinates_turn_and_grow_with_the_face(roll: float, scale: float) -> None:
    upright, points = layout_of()
    layout, landmarks = layout_of(roll, scale)
    for expected, found in zip(
        upright.to_face_coords(points[:468, :2]), layout.to_face_coords(landmarks[:468, :2]), strict=True
    ):
        assert np.allclose(found, expected, atol=1e-3)
    side, down = layout.to_face_coords(landmarks[[mesh.FOREHEAD, mesh.CHIN, mesh.CHEEK_LEFT], :2])
    assert down[:2] == pytest.approx([-0.5, 0.5], abs=1e-3)
    assert side[2] == pytest.approx(0.5, abs=0.02), "the subject's left is on the picture's right"


def test_distance_from_the_oval_is_zero_inside_and_grows_outside() -> None:
    layout, landmarks = layout_of()
    assert not layout.distance_outside_oval(landmarks[[1, 13, 33, 263], :2]).any()
    chin = landmarks[mesh.CHIN, :2]
    below = chin + np.array([[0, 5], [0, 50]], np.float32)
    assert layout.distance_outside_oval(below) == pytest.approx([5, 50], abs=0.5)


@pytest.mark.parametrize("cut_out", [True, False])
def test_the_head_moves_whole_and_the_far_picture_not_at_all(cut_out: bool) -> None:
    layout, landmarks = layout_of(roll=12)
    face = layout.head_weights(landmarks[:468, :2], cut_out=cut_out)
    assert face.min() > 0.95
    middle, width, height = layout.centre, layout.width, layout.height
    below = np.array([middle + layout.down * height * k for k in (0.6, 0.8, 1.0, 1.2, 2.0)], np.float32)
    neck = layout.head_weights(below, cut_out=cut_out)
    assert (np.diff(neck) <= 0).all()
    assert neck[0] > 0.5
    assert neck[-2:] == pytest.approx([0, 0])
    far = np.array(
        [middle + s * layout.across * width * 3 for s in (-1, 1)] + [middle - layout.down * height * 4],
        np.float32,
    )
    assert not layout.head_weights(far, cut_out=cut_out).any()


@pytest.mark.parametrize("cut_out", [True, False])
def test_the_share_is_smooth_and_symmetric(cut_out: bool) -> None:
    layout, _ = layout_of()
    y, x = np.mgrid[0:512:2, 0:512:2].astype(np.float32)
    pixels = np.column_stack([x.ravel(), y.ravel()])
    share = layout.head_weights(pixels, cut_out=cut_out).reshape(x.shape)
    assert share.min() >= 0
    assert share.max() == pytest.approx(1)
    assert np.isfinite(share).all()
    assert np.abs(np.diff(share, axis=0)).max() < 0.15
    assert np.abs(np.diff(share, axis=1)).max() < 0.15
    around = np.array([[layout.centre + np.array([s * 90, -60]) for s in (-1, 1)]], np.float32)[0]
    left, right = layout.head_weights(around, cut_out=cut_out)
    assert left == pytest.approx(right, abs=0.05)


def test_a_head_that_is_cut_out_takes_all_its_hair_along() -> None:
    layout, _ = layout_of()
    crown = np.array([layout.centre - layout.down * layout.height * 1.1], np.float32)
    assert layout.head_weights(crown, cut_out=True)[0] > 0.95
    assert layout.head_weights(crown, cut_out=False)[0] < 0.3


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=20))
def test_fading_falls_from_one_to_zero(places: list[float]) -> None:
    x = np.sort(np.array(places))
    values = smooth_falloff(x)
    assert (np.diff(values) <= 1e-12).all()
    assert (values[x <= 0] == 1).all()
    assert (values[x >= 1] == 0).all()
    assert smooth_falloff(np.array([0.5]))[0] == pytest.approx(0.5)


def test_a_face_without_extent_is_no_error() -> None:
    layout = HeadLayout.from_landmarks(np.full((478, 3), 20, np.float32))
    pixels = np.array([[20, 20], [300, 10]], np.float32)
    assert np.isfinite(layout.head_weights(pixels, cut_out=True)).all()
    assert np.isfinite(layout.distance_outside_oval(pixels)).all()
