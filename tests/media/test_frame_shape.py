from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from personalive.errors import InputError, MediaError, MediaTooLargeError
from personalive.image_inputs import to_frames, to_rgb
from personalive.media import VideoReader, check_shape, decode_image, open_driving
from personalive.media.frame_shape import (
    MAX_ASPECT_RATIO,
    MAX_IMAGE_PIXELS,
    MAX_SIDE,
    MIN_SIDE,
    describe_shape_problem,
)

from .clips import level, write_clip

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 2000), st.integers(1, 40_000))
SMALL = st.tuples(st.integers(1, 40), st.one_of(st.integers(1, 40), st.integers(1, 4000)))
"""Sizes of pictures that are really made: thin, tiny, and some that are fine."""
ANY_WAY_ROUND = st.tuples(SMALL, st.booleans()).map(lambda drawn: drawn[0][:: -1 if drawn[1] else 1])


@given(SIDES, SIDES)
@example(32_767, 1)
@example(33_000, 1_200)
@example(MAX_SIDE, MAX_SIDE // MAX_ASPECT_RATIO)
def test_what_is_accepted_lies_within_every_bound(width: int, height: int) -> None:
    short, long = min(width, height), max(width, height)
    fine = short >= MIN_SIDE and long <= MAX_SIDE and long <= MAX_ASPECT_RATIO * short
    assert (describe_shape_problem(width, height) is None) == (fine and width * height <= MAX_IMAGE_PIXELS)
    assert describe_shape_problem(width, height) == describe_shape_problem(height, width)


def test_the_sentence_names_size_and_bound() -> None:
    with pytest.raises(MediaError, match=r"a\.png has 32767×1 pixels: each side needs 16 pixels or more\."):
        check_shape(32_767, 1, "a.png")
    with pytest.raises(MediaError, match=r"33000×1200 .* crop it"):
        check_shape(8250, 300, "a.png", stored=(33_000, 1200))
    with pytest.raises(MediaTooLargeError, match="40 megapixels"):
        check_shape(8000, 5001, "a.png")


@FEW
@given(ANY_WAY_ROUND, st.sampled_from(["PNG", "JPEG", "WEBP", "AVIF"]))
@example((32_767, 1), "PNG")
@example((1, 16_383), "WEBP")
@example((16_500, 1_100), "JPEG")
def test_pictures_come_out_in_usable_shapes_only(size: tuple[int, int], kind: str) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, (90, 120, 150)).save(buffer, kind)
    try:
        image = decode_image(buffer.getvalue())
    except MediaError as error:
        assert describe_shape_problem(*size) is not None
        assert "×" in str(error)  # noqa: PT017
        return
    assert describe_shape_problem(image.shape[1], image.shape[0]) is None


@FEW
@given(ANY_WAY_ROUND)
def test_clips_come_out_in_usable_shapes_only(size: tuple[int, int]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.avi"
        write_clip(path, [level(90, *size)] * 2, codec="mjpeg", pixel_format="yuvj420p")
        try:
            with VideoReader(path) as reader:
                shapes = {frame.image.shape for frame in reader}
        except MediaError as error:
            assert "×" in str(error)  # noqa: PT017
            return
        assert describe_shape_problem(*size) is None
        assert all(describe_shape_problem(width, height) is None for height, width, _ in shapes)


@FEW
@given(st.lists(ANY_WAY_ROUND, min_size=1, max_size=3))
def test_folders_come_out_in_usable_shapes_only(sizes: list[tuple[int, int]]) -> None:
    usable = [size for size in sizes if describe_shape_problem(*size) is None]
    with TemporaryDirectory() as name:
        folder = Path(name)
        for index, size in enumerate(sizes):
            PIL.Image.new("RGB", size).save(folder / f"{index}.png")
        if not usable:
            with pytest.raises(MediaError, match="×"):
                open_driving(folder)
            return
        with open_driving(folder) as source:
            assert {frame.image.shape[1::-1] for frame in source} == {usable[0]}


@FEW
@given(ANY_WAY_ROUND)
def test_animations_come_out_in_usable_shapes_only(size: tuple[int, int]) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "a.webp"
        frames = [PIL.Image.new("RGB", size, (value, 0, 0)) for value in (0, 200)]
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        if describe_shape_problem(*size) is not None:
            with pytest.raises(MediaError, match="×"):
                open_driving(path)
            return
        with open_driving(path) as source:
            assert len(list(source)) == 2


@FEW
@given(ANY_WAY_ROUND)
def test_arrays_are_taken_in_usable_shapes_only(size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for take in (to_rgb, to_frames, lambda array: to_rgb(PIL.Image.fromarray(array))):
        if describe_shape_problem(*size) is not None:
            with pytest.raises(InputError, match="×"):
                take(image)
        else:
            assert len(take(image))
