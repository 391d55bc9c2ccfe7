from __future__ import annotations

import numpy as np
import pytest

from personalive.face.crop import CropBox
from personalive.jobs.layouts import PasteBackLayout, ResultLayout, SideBySideLayout
from personalive.media.types import Image

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def plain(size: tuple[int, int], colour: tuple[int, int, int]) -> Image:
    return np.full((size[1], size[0], 3), colour, np.uint8)


def test_result_only_is_the_animated_frame() -> None:
    frame = plain((64, 64), RED)
    assert ResultLayout((64, 64)).compose(plain((32, 16), BLUE), frame) is frame


def test_in_still_has_the_stills_size() -> None:
    layout = PasteBackLayout(plain((301, 201), GREEN), CropBox(50, 20, 100, 100))
    frame = layout.compose(plain((32, 16), BLUE), plain((256, 256), RED))
    assert frame.shape == (201, 301, 3)
    assert layout.size == (301, 201)
    assert frame[70, 100].tolist() == list(RED)
    assert frame[10, 10].tolist() == list(GREEN)


@pytest.mark.parametrize(
    ("driving", "width"), [((640, 360), 910), ((360, 640), 288), ((500, 500), 512), ((4000, 500), 910)]
)
def test_side_by_side_shows_all_three(driving: tuple[int, int], width: int) -> None:
    layout = SideBySideLayout(plain((512, 512), GREEN), driving, ResultLayout((512, 512)))
    frame = layout.compose(plain(driving, BLUE), plain((512, 512), RED))
    assert frame.shape == (layout.size[1], layout.size[0], 3)
    assert layout.size == (512 + width + 512 + 4 * 4, 512 + 32 + 8)
    colours = [frame[200, x].tolist() for x in (200, 520 + width // 2, layout.size[0] - 200)]
    assert colours == [list(RED if k == 2 else (GREEN, BLUE)[k]) for k in range(3)]


def test_the_names_are_large_enough_to_read() -> None:
    layout = SideBySideLayout(plain((512, 512), GREEN), (512, 512), ResultLayout((512, 512)))
    frame = layout.compose(plain((512, 512), BLUE), plain((512, 512), RED))
    caption = frame[4 + 512 :, :, 0] > 120
    for left in (4, 520, 1036):
        rows = np.flatnonzero(caption[:, left : left + 512].any(1))
        columns = np.flatnonzero(caption[:, left : left + 512].any(0))
        assert np.ptp(rows) >= 14
        assert np.ptp(columns) >= 40
        assert (columns.min() + columns.max()) / 2 == pytest.approx(256, abs=4)


def test_a_large_result_is_shown_at_a_height_that_can_be_played() -> None:
    still = plain((3000, 4000), GREEN)
    layout = SideBySideLayout(still, (640, 360), PasteBackLayout(still, CropBox(1000, 1000, 1000, 1000)))
    assert layout.size[1] < 1200
    frame = layout.compose(plain((640, 360), BLUE), plain((512, 512), RED))
    assert frame.shape[:2] == layout.size[::-1]
    assert layout.size[0] % 2 == layout.size[1] % 2 == 0


def test_composing_leaves_its_parts_alone() -> None:
    layout = SideBySideLayout(plain((64, 64), GREEN), (64, 64), ResultLayout((64, 64)))
    driving, animated = plain((64, 64), BLUE), plain((64, 64), RED)
    first = layout.compose(driving, animated)
    first[:] = 0
    assert layout.compose(driving, animated).any()
    assert (driving == BLUE).all()
