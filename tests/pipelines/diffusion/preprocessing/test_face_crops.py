from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from personalive.pipelines.diffusion.preprocessing.face_crops import compute_face_boxes, crop_faces
from personalive.pipelines.diffusion.preprocessing.keypoints import (
    DRAWN_KEYPOINTS,
    project_to_pixels,
    transform_keypoints,
)
from tests.pipelines.diffusion.figures import Case, Motions

Box = tuple[int, int, int, int]


def box_slowly(pixels: Tensor, height: int, width: int) -> list[int]:
    """From drawn pixels (7, 2), one float32 operation after the other, in the order they were trained with."""
    single = np.float32
    xs, ys = pixels.numpy().T
    centre_x, centre_y = single(xs.sum()) / single(7), single(ys.sum()) / single(7)
    side = (centre_y - ys.min()) * single(2) * single(1.7)
    before, after = side / single(2) * single(0.95), side / single(2) * single(1.05)
    corners = [(centre_x - before, width), (centre_y - before, height)]
    corners += [(centre_x + after, width), (centre_y + after, height)]
    return [int(min(max(corner, single(0)), single(length - 1))) for corner, length in corners]


@st.composite
def boxes_in_frames(draw: st.DrawFn) -> tuple[tuple[int, int], list[Box]]:
    """A frame's size, and boxes in it, empty ones among them."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    xs, ys = st.integers(0, width), st.integers(0, height)
    return (height, width), draw(st.lists(st.tuples(xs, ys, xs, ys), min_size=1, max_size=3))


def noise(count: int, height: int, width: int) -> Tensor:
    return 2 * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) - 1


def test_boxes_are_the_released_codes(case: Case, motions: Motions) -> None:
    boxes = case.tensor("boxes")
    assert torch.equal(
        compute_face_boxes(transform_keypoints(motions.reference), case.height, case.width), boxes[4:5]
    )
    expected = boxes[[frame if frame < 4 else frame + 1 for frame in motions.frames]]
    assert torch.equal(
        compute_face_boxes(transform_keypoints(motions.driving), case.height, case.width), expected
    )


def test_the_first_drawn_set_has_the_references_box(case: Case) -> None:
    boxes = compute_face_boxes(case.tensor("kps")[:1], case.height, case.width)
    assert torch.equal(boxes, case.tensor("boxes")[4:5])


@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.01, 0.2, 0.8, 3.0]),
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
@settings(max_examples=100, deadline=None)
def test_boxes_are_rounded_as_in_training(seed: int, spread: float, size: tuple[int, int]) -> None:
    points = spread * torch.randn(3, 21, 3, generator=torch.Generator().manual_seed(seed))
    boxes = compute_face_boxes(points, *size)
    assert boxes.dtype == torch.int64
    pixels = project_to_pixels(points, *size)
    assert boxes.tolist() == [box_slowly(frame, *size) for frame in pixels]


@pytest.mark.parametrize("value", [3.0, -3.0, 1e30, -1e30])
def test_a_face_out_of_frame_has_an_empty_box(value: float) -> None:
    points = torch.randn(2, 21, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    points[1] += value
    boxes = compute_face_boxes(points, 128, 96)
    assert crop_faces(noise(2, 128, 96), boxes, 8).valid.tolist() == [True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("index", [DRAWN_KEYPOINTS[0], DRAWN_KEYPOINTS[-1]])
def test_a_keypoint_that_is_not_finite_makes_its_box_empty(value: float, index: int) -> None:
    points = torch.randn(2, 21, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    points[1, index, 1] = value
    boxes = compute_face_boxes(points, 128, 96)
    assert boxes[1].tolist() == [0, 0, 0, 0]
    crops, valid = crop_faces(noise(2, 128, 96), boxes, 8)
    assert valid.tolist() == [True, False]
    assert crops[0].any()
    assert not crops[1].any()


@given(given_boxes=boxes_in_frames(), size=st.integers(1, 70))
@settings(max_examples=100, deadline=None)
def test_crops_are_those_made_one_by_one(given_boxes: tuple[tuple[int, int], list[Box]], size: int) -> None:
    (height, width), boxes = given_boxes
    frames = noise(len(boxes), height, width)
    crops, valid = crop_faces(frames, torch.tensor(boxes), size)
    for frame, (left, top, right, bottom), crop, good in zip(frames, boxes, crops, valid, strict=True):
        assert bool(good) == (left < right and top < bottom)
        expected = torch.zeros(1, 3, size, size)
        if good:
            part = frame[None, :, top:bottom, left:right]
            expected = F.interpolate(part, (size, size), mode="bilinear", align_corners=False)
        torch.testing.assert_close(crop, expected[0], rtol=0, atol=1e-6)


def test_large_faces_are_cropped_as_exactly() -> None:
    frames, box = noise(1, 700, 620), (9, 13, 611, 690)
    expected = F.interpolate(frames[..., 13:690, 9:611], (224, 224), mode="bilinear", align_corners=False)
    torch.testing.assert_close(crop_faces(frames, torch.tensor([box])).crops, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_frames_are_cropped_in_float32(dtype: torch.dtype) -> None:
    frames, box = noise(1, 40, 40).to(dtype), torch.tensor([[3, 4, 30, 37]])
    crops = crop_faces(frames, box, 16).crops
    assert crops.dtype == torch.float32
    assert torch.equal(crops, crop_faces(frames.float(), box, 16).crops)


def test_crops_are_channels_last() -> None:
    crops = crop_faces(noise(2, 40, 40), torch.tensor([[3, 4, 30, 37]] * 2), 16).crops
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_boxes_beyond_the_frame_do_no_harm() -> None:
    boxes = torch.tensor([[-50, -50, 80, 90], [500, 500, 600, 600]])
    assert crop_faces(noise(2, 40, 40), boxes, 16).crops.isfinite().all()
