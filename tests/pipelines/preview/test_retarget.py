from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.face.face import Face
from personalive.face.pose import Double, euler_angles, rotation_vector
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.parameters import PreviewRunParameters
from personalive.pipelines.preview.retarget import Retargeter
from personalive.pipelines.preview.rig import combine_expressions

from .faces import head_shape, make_face, turned

RAW = PreviewRunParameters(smoothing=0.0, translation=1.0)
NEUTRAL = make_face()
TALKING = combine_expressions({"jawOpen": 0.8})
STEP = 0.04


def with_(**values: object) -> PreviewRunParameters:
    return PreviewRunParameters.model_validate({**RAW.model_dump(), **values})


def retargeter(reference: Face | None = NEUTRAL, rotation: Double | None = None) -> Retargeter:
    return Retargeter(reference, head_shape(), np.eye(3) if rotation is None else rotation)


def run(
    faces: list[Face], parameters: PreviewRunParameters = RAW, to: Retargeter | None = None
) -> list[PortraitMotion]:
    mine = to or retargeter()
    return [mine.retarget(face, index * STEP, parameters) for index, face in enumerate(faces)]


def lids(closure: float, eyes: tuple[mesh.Eye, ...] = mesh.EYES) -> Double:
    """A change of shape that closes the eyes by a share of their opening."""
    change, shape = np.zeros((478, 3)), head_shape()
    for eye in eyes:
        change[eye.upper] = closure * (shape[eye.lower] - shape[eye.upper])
    return change


def look(x: float, y: float) -> Double:
    """A change of shape that moves the irises by widths of their eye."""
    change, shape = np.zeros((478, 3)), head_shape()
    for eye in mesh.EYES:
        width = np.linalg.norm(shape[eye.outer, :2] - shape[eye.inner, :2])
        change[eye.iris, :2] = np.array([x, y]) * width
    return change


def same(one: PortraitMotion, other: PortraitMotion) -> bool:
    names = ("rotation", "translation", "shape", "closure", "gaze")
    return one.scale == other.scale and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def assert_still(motion: PortraitMotion, tolerance: float = 1e-6) -> None:
    assert motion.rotation == pytest.approx(np.eye(3), abs=tolerance)
    assert motion.translation == pytest.approx(np.zeros(3), abs=tolerance)
    assert motion.scale == pytest.approx(1.0, abs=tolerance)
    for part in (motion.shape, motion.closure, motion.gaze):
        assert np.abs(part).max() <= tolerance


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1.0])
def test_the_first_frame_of_a_neutral_face_moves_nothing(smoothing: float) -> None:
    tilted = make_face(rotation=turned(5, 20, -8), shift=(3, -2, 0), scale=1.7)
    for face in (NEUTRAL, tilted):
        assert_still(run([face], with_(smoothing=smoothing))[0])


def test_relative_motion_counts_from_the_drivers_first_frame() -> None:
    first, second = turned(0, 20, 0), turned(0, 32, 0)
    own = turned(0, -15, 0)
    _, motion = run([make_face(rotation=first), make_face(rotation=second)], RAW, retargeter(rotation=own))
    assert euler_angles(motion.rotation) == pytest.approx([0, 12, 0], abs=0.05)


def test_absolute_motion_takes_the_drivers_pose_as_it_is() -> None:
    own = turned(0, -15, 0)
    (motion,) = run(
        [make_face(rotation=turned(0, 20, 0))], with_(motion="absolute"), retargeter(rotation=own)
    )
    assert motion.rotation @ own == pytest.approx(turned(0, 20, 0), abs=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_axis_turns_the_way_the_driver_does(axis: int) -> None:
    for angle in (-12.0, 12.0):
        angles = [0.0, 0.0, 0.0]
        angles[axis] = angle
        motion = run([NEUTRAL, make_face(rotation=turned(*angles))])[1]
        assert euler_angles(motion.rotation) == pytest.approx(angles, abs=0.05)


def test_the_mouth_opens_as_far_as_the_drivers() -> None:
    motion = run([NEUTRAL, make_face(TALKING)])[1]
    row = [14, 17, mesh.CHIN]
    share = motion.shape[row, 1] / TALKING[row, 1]
    assert (share > 0.7).all(), "a little is taken for a nod"
    assert (share < 1.1).all()
    assert np.abs(motion.shape[row, 0]).max() < 0.05
    assert np.abs(motion.shape[mesh.FOREHEAD]).max() < 0.1


def test_an_expression_of_the_first_frame_is_taken_for_what_it_is() -> None:
    """A driver who starts with an open mouth and shuts it leaves the portrait's mouth shut."""
    talking = make_face(combine_expressions({"jawOpen": 1.0}), scores={"jawOpen": 1.0})
    opened, closed = run([talking, NEUTRAL])
    assert opened.shape[mesh.CHIN, 1] < -1.5
    lips = closed.shape[13, 1] - closed.shape[14, 1]
    assert abs(lips) < 0.3, "lips touch again"
    assert abs(closed.shape[mesh.CHIN, 1]) < 0.3 * abs(opened.shape[mesh.CHIN, 1])


def test_absolute_motion_takes_the_portraits_own_expression_away() -> None:
    smile = {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}
    smiling = make_face(combine_expressions(smile), scores=smile)
    relative = run([NEUTRAL], RAW, retargeter(smiling))[0]
    absolute = run([NEUTRAL], with_(motion="absolute"), retargeter(smiling))[0]
    assert not relative.shape.any()
    assert absolute.shape[mesh.MOUTH_LEFT, 1] < -0.3
    assert absolute.shape[mesh.MOUTH_LEFT, 0] < -0.3


def test_two_smiles_make_one() -> None:
    smile: Mapping[str, float] = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9}
    driver = [NEUTRAL, make_face(combine_expressions(smile), scores=smile)]
    on_neutral = run(driver)[1].shape
    on_smiling = run(driver, RAW, retargeter(make_face(scores=smile)))[1].shape
    for corner in (mesh.MOUTH_LEFT, mesh.MOUTH_RIGHT):
        assert on_neutral[corner, 1] > 0.3
        assert -0.1 < on_smiling[corner, 1] < 0.5 * on_neutral[corner, 1]


def test_lids_close_with_the_drivers() -> None:
    frames = [NEUTRAL, *(make_face(lids(share)) for share in (0.3, 0.6, 1.0)), NEUTRAL]
    closure = [motion.closure for motion in run(frames)]
    assert closure[0] == pytest.approx([0, 0], abs=1e-6)
    assert (closure[0] < closure[1]).all()
    assert (closure[1] < closure[2]).all()
    assert closure[3] == pytest.approx([1, 1], abs=0.05)
    assert closure[4] == pytest.approx([0, 0], abs=1e-6)


def test_eyes_opened_wide_open_the_portraits_wider() -> None:
    wide = run([NEUTRAL, make_face(lids(-0.3), scores={"eyeWideLeft": 0.6, "eyeWideRight": 0.6})])[1]
    assert (wide.closure < -0.1).all()


def test_a_wink_shuts_one_eye_and_the_networks_word_counts() -> None:
    right, left = run([NEUTRAL, make_face(lids(1.0, (mesh.RIGHT_EYE,)))])[1].closure
    assert right > 0.7
    assert left < 0.3
    said = {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9}
    assert run([NEUTRAL, make_face(scores=said)])[1].closure == pytest.approx([1, 1])


def test_lids_are_no_part_of_the_shape() -> None:
    motion = run([NEUTRAL, make_face(lids(1.0))])[1]
    for eye in mesh.EYES:
        assert np.abs(motion.shape[eye.ring]).max() < 1e-6


def test_a_driver_first_seen_with_shut_eyes_opens_them() -> None:
    blink = {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9}
    shut, opened = run([make_face(lids(1.0), scores=blink), NEUTRAL])
    assert (shut.closure > 0.8).all()
    assert (opened.closure < 0.5).all()


def test_eyes_look_where_the_driver_looks_within_limits() -> None:
    still, right, up, far = run([NEUTRAL, *(make_face(look(*g)) for g in ((0.1, 0), (0, 0.08), (2, -2)))])
    assert np.abs(still.gaze).max() < 1e-6
    assert right.gaze == pytest.approx(np.array([[0.1, 0]] * 2), abs=0.01)
    assert up.gaze == pytest.approx(np.array([[0, 0.08]] * 2), abs=0.01)
    assert 0.1 < far.gaze[0, 0] < 0.5
    assert -0.5 < far.gaze[0, 1] < -0.05


def test_gaze_stays_while_the_lids_hide_it() -> None:
    _, looking, shut = run([NEUTRAL, make_face(look(0.15, 0)), make_face(lids(1.0) + look(-0.2, 0))])
    assert shut.gaze == pytest.approx(looking.gaze)


def test_no_smoothing_passes_what_it_is_given_and_more_lags_more() -> None:
    step = [NEUTRAL] * 5 + [make_face(TALKING, rotation=turned(0, 10, 0))] * 3
    first = 5
    drop, angle = [], []
    for smoothing in (0.0, 0.2, 0.5, 1.0):
        motion = run(step, with_(smoothing=smoothing))[first]
        drop.append(motion.shape[mesh.CHIN, 1])
        angle.append(euler_angles(motion.rotation)[1])
    assert angle[0] == pytest.approx(10, abs=0.05)
    assert (np.diff(angle) < 0).all()
    assert (np.diff(drop) > 0).all()
    assert angle[-1] > 0
    raw = run(step)
    assert np.array_equal(raw[first].shape, raw[-1].shape), "without smoothing nothing of before remains"


def test_a_smoothed_motion_arrives() -> None:
    turn = make_face(rotation=turned(0, 12, 0))
    motion = run([NEUTRAL, *[turn] * 100], with_(smoothing=1.0))[-1]
    assert euler_angles(motion.rotation)[1] == pytest.approx(12, abs=0.5)


LIVELY = make_face(
    TALKING + lids(0.7) + look(0.1, 0.05), rotation=turned(5, 10, -5), shift=(2, 1, 0), scale=1.2
)


def test_each_part_can_be_switched_off() -> None:
    everything = run([NEUTRAL, LIVELY])[1]
    assert rotation_vector(everything.rotation).any()
    calm = run([NEUTRAL, LIVELY], with_(expression=0.0))[1]
    assert not calm.shape.any()
    assert not calm.closure.any()
    assert not calm.gaze.any()
    assert np.array_equal(calm.rotation, everything.rotation)
    fixed = run([NEUTRAL, LIVELY], with_(pose=0.0))[1]
    assert np.array_equal(fixed.rotation, np.eye(3))
    assert not fixed.translation.any()
    assert fixed.scale == 1.0
    assert np.array_equal(fixed.shape, everything.shape)
    placed = run([NEUTRAL, LIVELY], with_(translation=0.0))[1]
    assert not placed.translation.any()
    assert placed.scale == 1.0
    assert np.array_equal(placed.rotation, everything.rotation)


def test_strengths_scale_their_part() -> None:
    whole = run([NEUTRAL, LIVELY])[1]
    strong = run([NEUTRAL, LIVELY], with_(expression=2.0))[1]
    assert strong.shape == pytest.approx(2 * whole.shape)
    assert (strong.closure >= whole.closure).all()
    assert strong.closure.max() <= 1
    half = run([NEUTRAL, LIVELY], with_(pose=0.5))[1]
    assert rotation_vector(half.rotation) == pytest.approx(0.5 * rotation_vector(whole.rotation), abs=1e-6)
    assert half.translation == pytest.approx(0.5 * whole.translation)
    near = run([NEUTRAL, LIVELY], with_(translation=0.5))[1]
    assert near.translation == pytest.approx(0.5 * whole.translation)
    assert near.scale - 1 == pytest.approx(0.5 * (whole.scale - 1))
    assert run([NEUTRAL, make_face(scale=1.2)])[1].scale == pytest.approx(1.2, abs=0.001)


def test_a_driver_who_sits_elsewhere_is_brought_back_to_the_middle() -> None:
    moved = make_face(shift=(4, -2, 0))
    motions = run([NEUTRAL, *[moved] * 750])
    assert motions[1].translation == pytest.approx([4, -2, 0], abs=0.1)
    travelled = [float(np.linalg.norm(motion.translation)) for motion in motions[1:]]
    assert (np.diff(travelled) <= 1e-9).all()
    assert travelled[24] > 0.5 * travelled[0], "not at once"
    assert travelled[-1] < 0.05


def test_a_reset_forgets_the_driver() -> None:
    mine = retargeter()
    smoothed = with_(smoothing=0.5)
    faces = [make_face(rotation=turned(0, 5 * k, 0), shift=(k, 0, 0)) for k in range(4)]
    first = run(faces, smoothed, mine)
    run([LIVELY, NEUTRAL, make_face(look(0.2, 0))], smoothed, mine)
    mine.reset()
    again = run(faces, smoothed, mine)
    assert all(same(one, other) for one, other in zip(first, again, strict=True))


def test_two_drivers_do_not_meet() -> None:
    one, other = retargeter(), retargeter()
    alone = run([NEUTRAL, LIVELY, LIVELY], with_(smoothing=0.5))
    together = []
    for index, face in enumerate([NEUTRAL, LIVELY, LIVELY]):
        together.append(one.retarget(face, index * STEP, with_(smoothing=0.5)))
        other.retarget(make_face(rotation=turned(0, -20, 9)), index * STEP, with_(smoothing=0.9))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_changing_the_smoothing_does_not_make_the_portrait_jump() -> None:
    mine, face = retargeter(), make_face(rotation=turned(0, 10, 0))
    run([NEUTRAL, *[face] * 60], with_(smoothing=1.0), mine)
    motion = mine.retarget(face, 61 * STEP, with_(smoothing=0.3))
    assert euler_angles(motion.rotation)[1] == pytest.approx(10, abs=0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0, 4),
    st.lists(st.floats(0, 100), min_size=3, max_size=3),
    st.sampled_from(["relative", "absolute"]),
    st.booleans(),
)
def test_the_wildest_landmarks_give_a_finite_motion(
    seed: int, noise: float, times: list[float], motion: str, known: bool
) -> None:
    rng = np.random.default_rng(seed)
    mine = retargeter(NEUTRAL if known else None)
    for time in sorted(times):
        face = make_face(
            rng.normal(0, noise, (478, 3)),
            rotation=turned(*rng.uniform(-180, 180, 3)),
            shift=(float(rng.normal(0, 50)), 0, 0),
            scale=float(np.exp(rng.normal(0, 1))),
            scores={name: float(rng.uniform()) for name in ("jawOpen", "mouthSmileLeft", "eyeBlinkRight")},
        )
        made = mine.retarget(face, time, with_(motion=motion, smoothing=0.5))
        for part in (made.rotation, made.translation, made.shape, made.closure, made.gaze):
            assert np.isfinite(part).all()
        assert np.isfinite(made.scale)
        assert np.abs(made.closure).max() <= 1
        assert np.abs(made.gaze).max() <= 0.5
