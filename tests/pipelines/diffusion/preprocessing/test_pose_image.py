from __future__ import annotations

from math import isfinite, trunc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from personalive.pipelines.diffusion.preprocessing.keypoints import DRAWN_KEYPOINTS
from personalive.pipelines.diffusion.preprocessing.pose_image import COLOURS, draw_pose_image
from tests.pipelines.diffusion.figures import Case

coordinates = st.one_of(
    st.floats(-1.25, 1.25, width=32),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
)


def points_at(places: list[list[tuple[float, float]]]) -> Tensor:
    points = torch.zeros(len(places), 21, 3)
    for frame, pairs in enumerate(places):
        for index, pair in zip(DRAWN_KEYPOINTS, pairs, strict=True):
            points[frame, index, :2] = torch.tensor(pair)
    return points


def drawn_slowly(points: Tensor, height: int, width: int) -> Tensor:
    canvas = torch.zeros(len(points), 3, height, width)
    for frame, keypoints in enumerate(points):
        for index, colour in zip(DRAWN_KEYPOINTS, COLOURS, strict=True):
            place = (keypoints[index, :2] * 0.5 + 0.5) * torch.tensor([width, height])
            if not all(map(isfinite, place.tolist())):
                continue
            x, y = map(trunc, place.tolist())
            for row in range(max(y - 4, 0), min(y + 5, height)):
                for column in range(max(x - 4, 0), min(x + 5, width)):
                    if (column - x) ** 2 + (row - y) ** 2 <= 16:
                        canvas[frame, :, row, column] += torch.tensor(colour) / 255
    return canvas.clamp(0, 1)


def test_canvases_are_the_released_codes(case: Case) -> None:
    canvas = draw_pose_image(case.tensor("kps"), case.height, case.width)
    torch.testing.assert_close(canvas.sum(dim=(2, 3)), case.tensor("canvas"), rtol=1e-6, atol=1e-5)


@given(
    places=st.lists(st.lists(st.tuples(coordinates, coordinates), min_size=7, max_size=7), max_size=2),
    size=st.tuples(st.integers(1, 48), st.integers(1, 48)),
)
@settings(max_examples=60, deadline=None)
def test_canvases_are_those_drawn_pixel_by_pixel(
    places: list[list[tuple[float, float]]], size: tuple[int, int]
) -> None:
    points = points_at(places)
    canvas = draw_pose_image(points, *size)
    assert canvas.shape == (len(places), 3, *size)
    torch.testing.assert_close(canvas, drawn_slowly(points, *size))


def test_discs_that_overlap_add_up_to_one_at_most() -> None:
    canvas = draw_pose_image(torch.zeros(1, 21, 3), 64, 64)
    assert canvas[0, :, 32, 32].tolist() == [1.0, 1.0, 1.0]
    assert canvas[0].count_nonzero(dim=(1, 2)).tolist() == [49, 49, 49]


def test_a_face_out_of_frame_leaves_the_canvas_black() -> None:
    assert not draw_pose_image(torch.full((1, 21, 3), 3.0), 64, 64).any()
    assert not draw_pose_image(torch.full((1, 21, 3), float("nan")), 64, 64).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_canvas_is_float32(dtype: torch.dtype) -> None:
    canvas = draw_pose_image(torch.zeros(1, 21, 3, dtype=dtype), 16, 16)
    assert canvas.dtype == torch.float32
