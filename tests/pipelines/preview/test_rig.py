from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.face.canonical import load_canonical_face
from personalive.face.face import BLENDSHAPES
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.rig import combine_expressions, estimate_expression, expressions

from .faces import make_face, mirror_of_vertices

MIDDLE_OF_LOWER_LIP = [14, 15, 16, 17]
LIDS = np.concatenate([eye.ring for eye in mesh.EYES])


def test_the_sides_mirror_each_other() -> None:
    mirror = mirror_of_vertices()
    rig = expressions()
    for name, displacement in rig.items():
        twin = name.replace("Right", "?").replace("Left", "Right").replace("?", "Left")
        flipped = displacement[:468][mirror] * [-1, 1, 1]
        assert np.allclose(flipped, rig[twin][:468], atol=1e-6), name


def test_names_are_those_of_the_network_and_nothing_moves_the_irises() -> None:
    assert set(expressions()) <= set(BLENDSHAPES)
    for displacement in expressions().values():
        assert displacement.shape == (478, 3)
        assert not displacement[468:].any()
        assert 0.2 < np.linalg.norm(displacement, axis=1).max() < 5


def test_an_open_jaw_takes_chin_and_lower_lip_down_and_leaves_the_upper_lip() -> None:
    moved = combine_expressions({"jawOpen": 1.0})
    assert (moved[mesh.CHIN_POINTS, 1] < -1).all()
    assert (moved[MIDDLE_OF_LOWER_LIP, 1] < -1).all()
    for row in mesh.LOWER_LIP_ROWS:
        assert (moved[row, 1] < 0).all()
    for row in mesh.UPPER_LIP_ROWS:
        assert not moved[row].any()
    upper_face = load_canonical_face().vertices[:, 1] > 1
    assert np.abs(moved[:468][upper_face]).max() < 0.05


def test_a_smile_raises_and_widens_the_corners() -> None:
    moved = combine_expressions({"mouthSmileRight": 1.0, "mouthSmileLeft": 1.0})
    assert moved[mesh.MOUTH_LEFT, 0] > 0.5
    assert moved[mesh.MOUTH_RIGHT, 0] < -0.5
    assert (moved[[mesh.MOUTH_LEFT, mesh.MOUTH_RIGHT], 1] > 0.4).all()
    assert np.abs(moved[mesh.CHIN]).max() < 0.15
    one = combine_expressions({"mouthSmileLeft": 1.0})
    assert np.linalg.norm(one[mesh.MOUTH_LEFT]) > 10 * np.linalg.norm(one[mesh.MOUTH_RIGHT])


def test_a_frown_lowers_what_a_smile_raises_and_a_pucker_narrows() -> None:
    frown = combine_expressions({"mouthFrownRight": 1.0, "mouthFrownLeft": 1.0})
    assert (frown[[mesh.MOUTH_LEFT, mesh.MOUTH_RIGHT], 1] < -0.2).all()
    pucker = combine_expressions({"mouthPucker": 1.0})
    assert pucker[mesh.MOUTH_LEFT, 0] < -0.1
    assert pucker[mesh.MOUTH_RIGHT, 0] > 0.1
    assert pucker[[0, 17], 2].min() > 0.1, "lips come forward"


def test_brows_move_and_leave_the_lids_alone() -> None:
    for name, row, sign in (
        ("browInnerUp", [*mesh.BROW_RIGHT, *mesh.BROW_LEFT], 1),
        ("browOuterUpRight", mesh.BROW_RIGHT, 1),
        ("browOuterUpLeft", mesh.BROW_LEFT, 1),
        ("browDownRight", mesh.BROW_RIGHT, -1),
        ("browDownLeft", mesh.BROW_LEFT, -1),
    ):
        moved = combine_expressions({name: 1.0})
        assert sign * moved[row, 1].mean() > 0.1, name
        assert np.abs(moved[LIDS]).max() < 1e-3, name


@given(st.dictionaries(st.sampled_from(sorted(expressions())), st.floats(-1, 1)), st.floats(0, 2))
def test_amounts_add_up(amounts: dict[str, float], factor: float) -> None:
    whole = combine_expressions(amounts)
    parts = sum((combine_expressions({name: amount}) for name, amount in amounts.items()), np.zeros((478, 3)))
    assert np.allclose(whole, parts)
    scaled = combine_expressions({name: factor * amount for name, amount in amounts.items()})
    assert np.allclose(scaled, factor * whole)


def test_a_name_that_the_rig_lacks_is_an_error() -> None:
    with pytest.raises(KeyError, match="cheekPuff"):
        combine_expressions({"jawOpen": 0.5, "cheekPuff": 0.5})


def test_nobody_can_change_the_shared_rig() -> None:
    with pytest.raises(ValueError, match="read-only"):
        expressions()["jawOpen"][0] = 1
    combine_expressions({"jawOpen": 1.0})[:] = 7
    assert not combine_expressions({}).any()


def test_a_neutral_face_has_no_expression() -> None:
    assert not estimate_expression(make_face()).any()
    resting = dict.fromkeys(expressions(), 0.1)
    assert not estimate_expression(make_face(scores=resting)).any()
    assert estimate_expression(make_face(scores=resting), threshold=0.05).any()


def test_scores_count_from_the_threshold_to_one() -> None:
    full = estimate_expression(make_face(scores={"jawOpen": 1.0}))
    assert np.allclose(full, combine_expressions({"jawOpen": 1.0}))
    assert np.allclose(
        estimate_expression(make_face(scores={"jawOpen": 0.6}), threshold=0.2),
        combine_expressions({"jawOpen": 0.5}),
    )
