from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion, MotionExtractor
from personalive.pipelines.diffusion.preprocessing.keypoints import (
    DRAWN_KEYPOINTS,
    interpolate,
    make_transition,
    project_to_pixels,
    retarget,
    rotation_matrix,
    transform_keypoints,
)
from tests.pipelines.diffusion.figures import TOLERANCE, Case, Motions, extract, relative_errors

PADDING = 12

angles = st.floats(-180, 180)


def some_motion(count: int, seed: int) -> HeadMotion:
    random = torch.Generator().manual_seed(seed)
    sizes = [(count, 21, 3), (count, 1), (count,), (count,), (count,), (count, 3)]
    return HeadMotion(*(torch.randn(size, generator=random) for size in sizes))


def drawn(motions: Motions) -> Tensor:
    """What a session draws: the transition, then the frames that were looked at."""
    targets = retarget(motions.reference, motions.driving, motions.first)
    first = HeadMotion(*(part[:1] for part in targets))
    return torch.cat(
        [
            transform_keypoints(make_transition(motions.reference, first, PADDING)),
            transform_keypoints(targets),
        ]
    )


def test_drawn_keypoints_are_the_released_networks(case: Case, motions: Motions) -> None:
    expected = case.tensor("kps")[[*range(PADDING), *(PADDING + frame for frame in motions.frames)]]
    assert relative_errors(drawn(motions), expected).max() < TOLERANCE


@pytest.mark.slow
def test_they_are_for_every_frame(case: Case, extractor: MotionExtractor) -> None:
    motions = extract(case, extractor, tuple(range(4 * case.facts["chunks"])))
    assert relative_errors(drawn(motions), case.tensor("kps")).max() < TOLERANCE


@given(pitch=angles, yaw=angles, roll=angles)
@settings(max_examples=50, deadline=None)
def test_rotation_is_the_transposed_product_of_elementary_ones(pitch: float, yaw: float, roll: float) -> None:
    x, y, z = radians(pitch), radians(yaw), radians(roll)
    about_x = np.array([[1, 0, 0], [0, cos(x), -sin(x)], [0, sin(x), cos(x)]])
    about_y = np.array([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
    about_z = np.array([[cos(z), -sin(z), 0], [sin(z), cos(z), 0], [0, 0, 1]])
    ours = rotation_matrix(*(torch.tensor([angle]) for angle in (pitch, yaw, roll)))
    np.testing.assert_allclose(ours[0].numpy(), (about_z @ about_y @ about_x).T, atol=2e-6)


def test_keypoints_are_turned_scaled_then_shifted_in_the_picture() -> None:
    motion = some_motion(4, seed=0)
    turn = rotation_matrix(motion.pitch, motion.yaw, motion.roll)
    for frame, ours in enumerate(transform_keypoints(motion)):
        expected = motion.scale[frame] * (motion.keypoints[frame] @ turn[frame])
        expected[:, :2] += motion.translation[frame, :2]
        torch.testing.assert_close(ours, expected)


def test_the_reference_follows_the_drivers_turns_and_half_of_its_shifts() -> None:
    reference, driving, first = some_motion(1, seed=1), some_motion(3, seed=2), some_motion(1, seed=3)
    motion = retarget(reference, driving, first)
    for frame in range(3):
        assert torch.equal(motion.keypoints[frame], reference.keypoints[0])
        assert torch.equal(motion.scale[frame], reference.scale[0])
        assert motion.yaw[frame] == driving.yaw[frame]
        shift = driving.translation[frame] - first.translation[0]
        torch.testing.assert_close(motion.translation[frame], reference.translation[0] + 0.5 * shift)


def test_sessions_may_share_a_batch() -> None:
    pairs = [(some_motion(1, seed), some_motion(1, seed + 10), some_motion(1, seed + 20)) for seed in (1, 2)]
    batches = [
        HeadMotion(*(torch.cat([a, b]) for a, b in zip(one, other, strict=True)))
        for one, other in zip(*pairs, strict=True)
    ]
    reference, driving, first = batches
    together = transform_keypoints(retarget(reference, driving, first))
    for index, pair in enumerate(pairs):
        assert torch.equal(together[index], transform_keypoints(retarget(*pair))[0])


def test_a_transition_leaves_from_the_reference_and_arrives_next() -> None:
    reference, first = some_motion(1, seed=4), some_motion(1, seed=5)
    target = retarget(reference, first, first)
    motion = make_transition(reference, target, PADDING)
    assert torch.equal(transform_keypoints(motion)[:1], transform_keypoints(reference))
    assert torch.equal(motion.keypoints, reference.keypoints.expand(PADDING, -1, -1))
    steps = torch.cat([motion.roll, target.roll]).diff()
    torch.testing.assert_close(steps, torch.full((PADDING,), steps.mean().item()), rtol=1e-4, atol=1e-6)


def test_an_approach_is_linear_in_every_number() -> None:
    start, end = torch.zeros(1, 2, 3), torch.arange(6.0).view(1, 2, 3)
    torch.testing.assert_close(interpolate(start, end, 4), torch.stack([k / 4 * end[0] for k in range(4)]))


def test_pixels_are_truncated_towards_zero() -> None:
    points = torch.zeros(1, 21, 3)
    points[0, DRAWN_KEYPOINTS[0], :2] = torch.tensor([-1.015, -1.015])
    points[0, DRAWN_KEYPOINTS[1], :2] = torch.tensor([float("nan"), float("inf")])
    pixels = project_to_pixels(points, 100, 200)
    assert pixels[0, 0].tolist() == [-1.0, 0.0]
    assert pixels[0, 1].isnan().tolist() == [True, False]
    assert pixels[0, 1, 1].isinf()
    assert pixels[0, 2].tolist() == [100.0, 50.0]
