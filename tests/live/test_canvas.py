from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.face.crop import CropBox, ImageSize, extract_crop
from personalive.live.canvas import Background, Canvas, parse_background, place_frame
from personalive.media import Image

even_sides = st.integers(32, 960).map(lambda half: 2 * half)
frame_sides = st.integers(4, 16).map(lambda times: 64 * times)
sizes = st.tuples(even_sides, even_sides)
frames = st.tuples(frame_sides, frame_sides)


@given(frames, sizes)
def test_a_frame_is_placed_in_the_middle_as_large_as_it_can_be(frame: ImageSize, canvas: ImageSize) -> None:
    place = place_frame(frame, canvas)
    assert place.left >= 0
    assert place.top >= 0
    right = canvas[0] - place.left - place.width
    below = canvas[1] - place.top - place.height
    assert 0 <= right - place.left <= 1
    assert 0 <= below - place.top <= 1
    assert place.left == right == 0 or place.top == below == 0
    aspect, wanted = place.width / place.height, frame[0] / frame[1]
    # A pixel on the shorter side is what rounding may cost, and 2 % of bars are not worth having.
    assert abs(aspect / wanted - 1) <= 0.021 + 1 / min(place.width, place.height)


def canvas(
    background: Background, size: ImageSize, frame: ImageSize, portrait: Image, box: CropBox
) -> Canvas:
    return Canvas(size, frame, background, portrait=portrait, box=box)


@given(
    st.sampled_from([(640, 360), (360, 640), (512, 512)]),
    st.sampled_from([(256, 256), (256, 384), (448, 256)]),
)
def test_the_frame_is_in_its_place_and_the_ground_around_it(size: ImageSize, frame: ImageSize) -> None:
    grey = np.full((64, 64, 3), 9, np.uint8)
    animated = np.full((frame[1], frame[0], 3), 200, np.uint8)
    made = canvas(Background("colour", (10, 20, 30)), size, frame, grey, CropBox(0, 0, 64, 64)).compose(
        animated
    )
    assert made.shape == (size[1], size[0], 3)
    assert made.dtype == np.uint8
    inside = np.zeros(made.shape[:2], bool)
    inside[place_frame(frame, size).region] = True
    assert np.all(made[inside] == 200)
    assert np.all(made[~inside] == (10, 20, 30))


@pytest.mark.parametrize("size", [(640, 360), (256, 512)])
def test_an_extended_background_has_no_seam(size: ImageSize, portrait: Image) -> None:
    """While the frame shows the portrait as it is, the canvas is a larger crop of the portrait."""
    box = CropBox(100, 60, 200, 200)
    made = canvas(Background("extend"), size, (256, 256), portrait, box)
    place = place_frame((256, 256), size)
    scale = box.width / place.width
    larger = CropBox(
        box.left - place.left * scale, box.top - place.top * scale, size[0] * scale, size[1] * scale
    )
    shown = made.compose(extract_crop(portrait, box, (256, 256)))
    difference = np.abs(shown.astype(int) - extract_crop(portrait, larger, size))
    # Resampled twice within the frame; nowhere a step.
    assert difference.mean() < 3
    rows, columns = place.region
    assert np.array_equal(shown[: rows.start], extract_crop(portrait, larger, size)[: rows.start])
    assert np.array_equal(shown[:, : columns.start], extract_crop(portrait, larger, size)[:, : columns.start])


def test_the_edges_of_a_frame_fade_into_the_extended_background(portrait: Image) -> None:
    made = canvas(Background("extend"), (640, 360), (256, 256), portrait, CropBox(100, 60, 200, 200))
    red = made.compose(np.full((256, 256, 3), (255, 0, 0), np.uint8))[180].astype(int)
    place = place_frame((256, 256), (640, 360))
    green = red[:, 1]
    assert green[place.left : place.left + place.width].max() > 0
    assert green[place.left + 40 : place.left + place.width - 40].max() == 0
    assert red[place.left + place.width // 2, 0] == 255


def test_blur_and_pictures_cover_the_canvas(portrait: Image, portrait_file: Path) -> None:
    box = CropBox(100, 60, 200, 200)
    frame = np.zeros((256, 256, 3), np.uint8)
    blurred = canvas(Background("blur"), (640, 360), (256, 256), portrait, box).compose(frame)
    pictured = canvas(parse_background(str(portrait_file)), (640, 360), (256, 256), portrait, box).compose(
        frame
    )
    sharpness = [cv2.Laplacian(each[:, :130], cv2.CV_64F).var() for each in (blurred, pictured)]
    assert sharpness[0] < 0.1 * sharpness[1]
    assert blurred[:, :130].max() > 0


def test_a_frame_as_large_as_the_canvas_is_the_canvas(portrait: Image) -> None:
    animated = portrait[:256, :256]
    made = canvas(Background("extend"), (256, 256), (256, 256), portrait, CropBox(0, 0, 100, 100))
    assert np.array_equal(made.compose(animated), animated)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_are_read(colour: tuple[int, int, int]) -> None:
    assert parse_background("#" + bytes(colour).hex()).colour == colour


@pytest.mark.parametrize("text", ["", "#12345", "#gggggg", "no such file.png", "Blur"])
def test_other_backgrounds_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(InputError, match="extend, blur, a colour such as #203040, or a picture"):
        parse_background(text)
