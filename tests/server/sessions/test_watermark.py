from __future__ import annotations

import numpy as np
import pytest

from personalive.media.types import Image
from personalive.server.sessions.watermark import add_watermark


def grey(height: int, width: int, level: int = 128) -> Image:
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (1024, 1024), (256, 1024), (1024, 256), (480, 270)])
def test_the_mark_is_in_the_corner_and_stands_out(size: tuple[int, int], level: int) -> None:
    before = grey(*size, level)
    after = add_watermark(before)
    height, width = size
    rows, columns = np.nonzero((after != before).any(axis=2))
    assert rows.min() > height - 0.16 * width - 8
    assert columns.min() > width - max(0.3 * width, 100)
    corner = after[rows.min() :, columns.min() :].astype(int)
    assert corner.max() >= 240
    assert np.percentile(corner, 20) < 130
    # Letters and shade change often along a line through the middle: there is text.
    middle = corner[len(corner) // 2, :, 0] > 180
    assert np.count_nonzero(np.diff(middle.astype(int))) >= 12


def test_the_frame_given_stays_as_it_was() -> None:
    before = grey(512, 512)
    before.setflags(write=False)
    after = add_watermark(before)
    assert after is not before
    assert after.dtype == np.uint8
    assert (before == 128).all()


def test_every_frame_gets_the_same_mark() -> None:
    assert np.array_equal(add_watermark(grey(512, 512)), add_watermark(grey(512, 512)))


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (8, 512)])
def test_frames_too_small_for_it_are_left_alone(size: tuple[int, int]) -> None:
    assert np.array_equal(add_watermark(grey(*size)), grey(*size))
