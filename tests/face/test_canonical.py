from __future__ import annotations

import numpy as np
import pytest

from personalive.face.canonical import load_canonical_face


def test_the_mesh_is_closed_over_eyes_and_mouth() -> None:
    face = load_canonical_face()
    assert face.vertices.shape == (468, 3)
    assert face.triangles.shape == (898, 3)
    edges = np.sort(face.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, shared = np.unique(edges, axis=0, return_counts=True)
    assert shared.max() == 2
    assert (shared == 1).sum() == 36, "only the face's oval is an open edge"


def test_it_is_a_human_face_in_centimetres() -> None:
    vertices = load_canonical_face().vertices
    width, height, _ = np.ptp(vertices, axis=0)
    assert 14 < width < 17
    assert 16 < height < 19
    nose, chin, forehead = vertices[1], vertices[152], vertices[10]
    assert nose[2] == pytest.approx(vertices[:, 2].max(), abs=1.0)
    assert chin[1] < nose[1] < forehead[1]
    assert abs(vertices[:, 0].mean()) < 0.1


def test_rigid_points_are_few_and_symmetric_in_weight() -> None:
    face = load_canonical_face()
    used = face.rigid_weights > 0
    assert 20 < used.sum() < 60
    assert abs(face.rigid_weights @ face.vertices[:, 0]) / face.rigid_weights.sum() < 0.1


def test_nobody_can_change_the_shared_arrays() -> None:
    face = load_canonical_face()
    with pytest.raises(ValueError, match="read-only"):
        face.vertices[0, 0] = 1
    assert load_canonical_face() is face
