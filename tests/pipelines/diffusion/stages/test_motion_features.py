from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.stages.motion_features import (
    DriverState,
    MotionFeatures,
    hold_last,
    repeat_last,
    smooth,
)


def heads(count: int, seed: int = 0) -> HeadMotion:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((21, 3), (1,), (), (), (), (3,))
    return HeadMotion(*(torch.randn(count, *shape, generator=generator) for shape in shapes))


def seen(valid: list[bool], seed: int = 0) -> MotionFeatures:
    tokens = torch.arange(float(len(valid)))[:, None, None].expand(-1, 32, 16)
    boxes = torch.zeros(len(valid), 4, dtype=torch.int64)
    return MotionFeatures(heads(len(valid), seed), tokens, boxes, torch.tensor(valid))


def driver() -> DriverState:
    head = heads(1, seed=9)
    return DriverState(head, head, torch.full((1, 32, 16), -1.0), head)


masks = st.lists(st.booleans(), min_size=1, max_size=8)


@given(masks)
def test_a_frame_without_a_face_has_the_motion_of_the_last_good_one(valid: list[bool]) -> None:
    before, now = driver(), seen(valid)
    head, tokens = hold_last(now, before)
    last = -1
    for index, good in enumerate(valid):
        last = index if good else last
        assert tokens[index, 0, 0] == last
        yaw = before.head.yaw[0] if last < 0 else now.head.yaw[last]
        assert head.yaw[index] == yaw


@given(masks.filter(any))
def test_at_the_start_frames_before_the_first_face_have_its_motion(valid: list[bool]) -> None:
    head, tokens = hold_last(seen(valid), None)
    last = valid.index(True)
    for index, good in enumerate(valid):
        last = index if good else last
        assert tokens[index, 0, 0] == last
        assert torch.equal(head.keypoints[index], seen(valid).head.keypoints[last])


def test_unseen_frames_hold_the_driver() -> None:
    before = driver()
    head, tokens = hold_last(repeat_last(before, 4), before)
    assert torch.equal(tokens, before.tokens.expand(4, -1, -1))
    assert torch.equal(head.translation, before.head.translation.expand(4, -1))


def test_without_smoothing_the_motion_is_as_it_is() -> None:
    head = heads(4)
    assert smooth(head, heads(1, 5), 0.0) is head


@pytest.mark.parametrize("smoothing", [0.3, 1.0])
@pytest.mark.parametrize("begun", [False, True])
def test_smoothing_is_the_recursive_mean_of_angles_scale_and_shift(smoothing: float, begun: bool) -> None:
    head, keep = heads(6), 0.85 * smoothing
    before = heads(1, 5) if begun else None
    calm = smooth(head, before, smoothing)
    assert torch.equal(calm.keypoints, head.keypoints)
    for name in ("scale", "pitch", "yaw", "roll", "translation"):
        values = getattr(head, name)
        mean = values[0] if before is None else getattr(before, name)[0]
        for index, value in enumerate(values):
            mean = keep * mean + (1 - keep) * value
            assert torch.allclose(getattr(calm, name)[index], mean, atol=1e-6)


@given(st.integers(1, 5))
def test_smoothing_does_not_depend_on_where_chunks_end(cut: int) -> None:
    head = heads(6)
    whole = smooth(head, None, 0.7)
    first = smooth(HeadMotion(*(value[:cut] for value in head)), None, 0.7)
    rest = smooth(
        HeadMotion(*(value[cut:] for value in head)), HeadMotion(*(value[-1:] for value in first)), 0.7
    )
    for name in HeadMotion._fields:
        joined = torch.cat([getattr(first, name), getattr(rest, name)])
        assert torch.allclose(joined, getattr(whole, name), atol=1e-6)
