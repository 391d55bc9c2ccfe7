from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.media.animation_timing import DEFAULT_DURATION, read_frame_durations

MILLISECONDS = st.lists(st.integers(0, 5000), min_size=2, max_size=6)


def animation(kind: str, milliseconds: list[int]) -> bytes:
    frames = [PIL.Image.fromarray(np.full((8, 8, 3), 20 * k, np.uint8)) for k in range(len(milliseconds))]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, kind, save_all=True, append_images=frames[1:], duration=milliseconds, lossless=True
    )
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_durations_that_were_written(kind: str) -> None:
    @settings(max_examples=20, deadline=None)
    @given(MILLISECONDS)
    def check(milliseconds: list[int]) -> None:
        wanted = [value / 1000 if value else DEFAULT_DURATION for value in milliseconds]
        assert read_frame_durations(animation(kind, milliseconds)) == pytest.approx(wanted)

    check()


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_a_file_that_breaks_off(kind: str) -> None:
    data = animation(kind, [40, 50, 60])

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, len(data)))
    def check(length: int) -> None:
        found = read_frame_durations(data[:length])
        assert found == pytest.approx([0.04, 0.05, 0.06][: len(found)])

    check()
