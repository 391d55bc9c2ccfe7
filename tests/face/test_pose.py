from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.face.canonical import load_canonical_face
from personalive.face.pose import (
    Double,
    HeadPose,
    euler_angles,
    fit_head_pose,
    rotation_matrix,
    rotation_vector,
)

angle = st.floats(-60.0, 60.0)
place = st.floats(-3000.0, 3000.0)
component = st.floats(-1.0, 1.0)


def turned(pitch: float, yaw: float, roll: float) -> Double:
    """Rz(roll)·Ry(yaw)·Rx(pitch), degrees, written out."""
    a, b, c = np.radians([pitch, yaw, roll])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(z @ y @ x)


@given(angle, angle, angle, st.floats(0.2, 100.0), place, place, place)
def test_a_known_pose_is_recovered(
    pitch: float, yaw: float, roll: float, scale: float, x: float, y: float, z: float
) -> None:
    pose = HeadPose(turned(pitch, yaw, roll), scale, np.array([x, y, z]))
    found = fit_head_pose(pose.to_frame(load_canonical_face().vertices))
    assert np.allclose(found.rotation, pose.rotation, atol=1e-7)
    assert found.scale == pytest.approx(scale, rel=1e-7)
    assert np.allclose(found.translation, pose.translation, atol=1e-5)
    assert np.allclose(found.angles, [pitch, yaw, roll], atol=1e-5)


@given(angle, angle, angle, st.floats(0.2, 100.0), place, place)
def test_the_way_to_the_head_and_back_ends_where_it_began(
    pitch: float, yaw: float, roll: float, scale: float, x: float, y: float
) -> None:
    pose = HeadPose(turned(pitch, yaw, roll), scale, np.array([x, y, 12.0]))
    points = np.random.default_rng(0).uniform(-10, 10, (30, 3))
    assert np.allclose(pose.to_head(pose.to_frame(points)), points, atol=1e-8)
    assert np.allclose(pose.to_frame(pose.to_head(points * 50)), points * 50, atol=1e-6)


def test_the_axes_are_those_of_a_picture() -> None:
    pose = HeadPose(np.eye(3), 10.0, np.array([100.0, -200.0, 0.0]))
    origin, right, up, near = pose.to_frame(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float))
    assert origin == pytest.approx([100, 200, 0])
    assert right - origin == pytest.approx([10, 0, 0])
    assert up - origin == pytest.approx([0, -10, 0])
    assert near - origin == pytest.approx([0, 0, -10])


def test_what_expressions_move_does_not_turn_the_head() -> None:
    pose = HeadPose(turned(10, -25, 8), 11.0, np.array([200.0, -180.0, 30.0]))
    points = pose.to_frame(load_canonical_face().vertices)
    free = load_canonical_face().rigid_weights == 0
    points[free] += np.random.default_rng(1).normal(0, 40, (int(free.sum()), 3))
    found = fit_head_pose(points)
    assert np.allclose(found.rotation, pose.rotation, atol=1e-8)
    assert found.scale == pytest.approx(pose.scale)


def test_irises_are_no_part_of_the_fit_and_single_precision_is_enough() -> None:
    pose = HeadPose(turned(-12, 20, 5), 14.0, np.array([300.0, -310.0, 0.0]))
    points = np.vstack([pose.to_frame(load_canonical_face().vertices), np.full((10, 3), 1e4)])
    found = fit_head_pose(points.astype(np.float32))
    assert np.allclose(found.angles, pose.angles, atol=0.01)
    assert found.scale == pytest.approx(pose.scale, rel=1e-4)


def test_noise_on_every_point_moves_the_pose_little() -> None:
    pose = HeadPose(turned(5, 15, -10), 12.0, np.array([256.0, -256.0, 0.0]))
    points = pose.to_frame(load_canonical_face().vertices)
    noisy = points + np.random.default_rng(2).normal(0, 1.0, points.shape)
    assert np.abs(fit_head_pose(noisy).angles - pose.angles).max() < 2.0


def test_a_mirror_image_still_gives_a_rotation() -> None:
    points = HeadPose(np.eye(3), 10.0, np.zeros(3)).to_frame(load_canonical_face().vertices)
    points[:, 2] *= -1
    found = fit_head_pose(points)
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)
    assert found.rotation @ found.rotation.T == pytest.approx(np.eye(3), abs=1e-9)


@given(st.floats(-179, 179), st.floats(-89, 89), st.floats(-179, 179), st.floats(0.1, 10))
def test_angles_come_back_from_a_matrix_of_any_size(
    pitch: float, yaw: float, roll: float, scale: float
) -> None:
    transform = np.eye(4)
    transform[:3, :3] = turned(pitch, yaw, roll) * scale
    transform[:3, 3] = [3, -4, -50]
    assert np.allclose(euler_angles(transform), [pitch, yaw, roll], atol=1e-5)


def test_looking_straight_up_is_no_error() -> None:
    assert np.isfinite(euler_angles(turned(0, 90, 0))).all()
    assert euler_angles(turned(0, -90, 0))[1] == pytest.approx(-90, abs=1e-4)


@given(component, component, component, st.floats(0.0, 3.1))
def test_a_vector_becomes_a_rotation_and_a_vector_again(x: float, y: float, z: float, size: float) -> None:
    length = float(np.linalg.norm([x, y, z]))
    vector = np.array([x, y, z]) * (size / length if length > 1e-3 else 1.0)
    rotation = rotation_matrix(vector)
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert np.allclose(rotation_vector(rotation), vector, atol=1e-5)
    assert np.allclose(rotation @ vector, vector, atol=1e-9), "the axis stays"


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-16, 1e-9, 1e-8, 2e-8, 1e-7, 1e-5, 1e-3])
def test_tiny_rotations_keep_their_size(size: float) -> None:
    vector = size * np.array([0.6, -0.64, 0.48])
    assert rotation_vector(rotation_matrix(vector)) == pytest.approx(vector, rel=1e-4, abs=1e-16)


def test_rotations_turn_the_right_way() -> None:
    quarter = np.pi / 2
    assert rotation_matrix(np.array([0, 0, quarter])) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    assert euler_angles(rotation_matrix(np.array([0.3, 0, 0]))) == pytest.approx([np.degrees(0.3), 0, 0])
    assert euler_angles(rotation_matrix(np.array([0, 0.3, 0]))) == pytest.approx([0, np.degrees(0.3), 0])
    assert euler_angles(rotation_matrix(np.array([0, 0, 0.3]))) == pytest.approx([0, 0, np.degrees(0.3)])
    assert np.isfinite(rotation_vector(rotation_matrix(np.array([0, np.pi, 0])))).all()
