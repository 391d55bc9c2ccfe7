from __future__ import annotations

import numpy as np
import pytest

from personalive.face.face import FaceMesh
from personalive.face.landmark_filter import LandmarkFilter


def mesh(x: float, y: float, size: float = 100.0, noise: float = 0.0, seed: int = 0) -> FaceMesh:
    """Landmarks filling a square of `size`, its corner at (x, y)."""
    points = np.zeros((478, 3), np.float32)
    points[:, 0] = np.linspace(x, x + size, 478)
    points[:, 1] = np.linspace(y, y + size, 478)
    points += np.random.default_rng(seed).normal(0, noise, points.shape).astype(np.float32) if noise else 0
    return FaceMesh(points)


def test_the_first_face_and_the_first_after_a_reset_pass_as_they_are() -> None:
    steady = LandmarkFilter()
    assert np.array_equal(steady.filter(mesh(10, 20)).landmarks, mesh(10, 20).landmarks)
    steady.filter(mesh(11, 20))
    steady.reset()
    assert np.array_equal(steady.filter(mesh(90, 20)).landmarks, mesh(90, 20).landmarks)


def test_at_rest_most_of_the_tremble_goes() -> None:
    steady = LandmarkFilter()
    raw = [mesh(10, 20, noise=0.1, seed=seed) for seed in range(60)]
    filtered = [steady.filter(one).landmarks for one in raw]
    tremble = np.std(np.diff([one.landmarks for one in raw], axis=0))
    assert np.std(np.diff(filtered[20:], axis=0)) < 0.25 * tremble


def test_a_quick_movement_passes_with_little_lag() -> None:
    steady = LandmarkFilter()
    for k in range(40):
        filtered = steady.filter(mesh(10 + 5 * k, 20))
    assert filtered.centre[0] == pytest.approx(10 + 5 * 39 + 50, abs=5)  # a frame is five pixels


def test_a_large_face_is_filtered_as_a_small_one() -> None:
    small, large = LandmarkFilter(), LandmarkFilter()
    for k in range(10):
        x = 3 * np.sin(k)
        one = small.filter(mesh(x, 0, 100)).landmarks
        other = large.filter(mesh(8 * x, 0, 800)).landmarks
    assert other / 8 == pytest.approx(one, abs=1e-3)


def test_what_was_handed_out_stays() -> None:
    steady = LandmarkFilter()
    first = steady.filter(mesh(0, 0))
    kept = first.landmarks.copy()
    for k in range(5):
        steady.filter(mesh(k, k))
    assert np.array_equal(first.landmarks, kept)


def test_landmarks_on_one_point_are_no_trouble() -> None:
    steady = LandmarkFilter()
    for k in range(3):
        assert np.isfinite(steady.filter(mesh(k, 0, 0.0)).landmarks).all()
