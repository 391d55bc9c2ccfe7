from __future__ import annotations

import numpy as np
import pytest

from personalive.face.canonical import load_canonical_face
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.topology import Indices

from .faces import mirror_of_vertices

RINGS = {
    "right eye": (mesh.RIGHT_EYE.ring, 16),
    "left eye": (mesh.LEFT_EYE.ring, 16),
    "mouth": (mesh.mouth_ring(), 20),
    "oval": (mesh.OVAL, 36),
}
ROWS = {
    **{f"{side} eye {name}": getattr(eye, name) for side, eye in zip(("right", "left"), mesh.EYES, strict=True)
       for name in ("upper", "lower", "crease", "under", "iris", "ring")},
    **{f"lower lip {k}": row for k, row in enumerate(mesh.LOWER_LIP_ROWS)},
    **{f"upper lip {k}": row for k, row in enumerate(mesh.UPPER_LIP_ROWS)},
    "lip corners": mesh.LIP_CORNERS,
    "right brow": mesh.BROW_RIGHT,
    "left brow": mesh.BROW_LEFT,
    "oval": mesh.OVAL,
    "chin": mesh.CHIN_POINTS,
    "mouth": mesh.mouth_ring(),
}  # fmt: skip


def edges(triangles: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> dict[tuple[int, int], int]:
    """Every edge and how many triangles share it."""
    pairs = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    return {(int(a), int(b)): int(n) for (a, b), n in zip(unique, counts, strict=True)}


def around(ring: Indices) -> set[tuple[int, int]]:
    pairs = zip(ring.tolist(), np.roll(ring, -1).tolist(), strict=True)
    return {(min(a, b), max(a, b)) for a, b in pairs}


@pytest.mark.parametrize("name", RINGS)
def test_rings_run_along_edges_of_the_mesh_and_close(name: str) -> None:
    ring, count = RINGS[name]
    assert len(ring) == count
    assert around(ring) <= set(edges(load_canonical_face().triangles))


@pytest.mark.parametrize("name", ROWS)
def test_no_row_names_a_landmark_twice(name: str) -> None:
    row = ROWS[name]
    assert len(set(row.tolist())) == len(row)
    assert row.min() >= 0
    assert row.max() < (478 if "iris" in name else 468)


def test_the_rings_are_where_the_canonical_face_closes_eyes_and_mouth() -> None:
    triangles = load_canonical_face().triangles
    closing = np.zeros(len(triangles), bool)
    for ring, _ in RINGS.values():
        closing |= np.isin(triangles, ring).all(axis=1)
    skin = triangles[~closing]
    assert skin.shape == (852, 3)
    rims = {edge for edge, count in edges(skin).items() if count == 1}
    assert rims == set.union(*(around(ring) for ring, _ in RINGS.values()))


def test_the_eyes_mirror_each_other() -> None:
    mirror = mirror_of_vertices()
    right, left = mesh.EYES
    assert mirror[right.outer] == left.outer
    assert mirror[right.inner] == left.inner
    for name in ("upper", "lower", "crease", "under", "ring"):
        assert np.array_equal(mirror[getattr(right, name)], getattr(left, name)), name
    assert (right.blink, left.blink) == ("eyeBlinkRight", "eyeBlinkLeft")


def test_lips_and_oval_are_symmetric() -> None:
    mirror = mirror_of_vertices()
    for row in (*mesh.LOWER_LIP_ROWS, *mesh.UPPER_LIP_ROWS):
        assert np.array_equal(mirror[row], row[::-1])
    assert mirror[mesh.MOUTH_RIGHT] == mesh.MOUTH_LEFT
    assert mirror[mesh.INNER_RIGHT] == mesh.INNER_LEFT
    assert mirror[mesh.CHEEK_RIGHT] == mesh.CHEEK_LEFT
    assert np.array_equal(mirror[mesh.BROW_RIGHT], mesh.BROW_LEFT)
    for points in (mesh.OVAL, mesh.LIP_CORNERS, mesh.CHIN_POINTS):
        assert set(mirror[points].tolist()) == set(points.tolist())


def test_right_is_on_the_left_of_the_picture_and_up_is_up() -> None:
    x, y, _ = load_canonical_face().vertices.T
    for eye, side in zip(mesh.EYES, (-1, 1), strict=True):
        assert side * x[eye.outer] > side * x[eye.inner] > 0
        assert (y[eye.crease] > y[eye.upper]).all()
        assert (y[eye.upper] > y[eye.lower]).all()
        assert (y[eye.lower] > y[eye.under]).all()
        assert (np.diff(side * x[eye.upper]) < 0).all(), "from the outer corner to the inner"
    assert x[mesh.MOUTH_RIGHT] < 0 < x[mesh.MOUTH_LEFT]
    assert y[mesh.FOREHEAD] > y[mesh.CHIN]
    for row in (*mesh.LOWER_LIP_ROWS, *mesh.UPPER_LIP_ROWS):
        assert (np.diff(x[row]) > 0).all(), "from the subject's right to the left"


def test_the_oval_runs_clockwise_from_the_forehead_and_holds_the_face() -> None:
    ring = load_canonical_face().vertices[mesh.OVAL, :2] * [1, -1]
    following = np.roll(ring, -1, axis=0)
    assert (ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]).sum() > 0
    assert mesh.OVAL[0] == mesh.FOREHEAD
    assert mesh.CHIN in mesh.OVAL
    assert ring[18, 1] == pytest.approx(ring[:, 1].max())
