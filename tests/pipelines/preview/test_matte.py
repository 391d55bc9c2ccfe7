from __future__ import annotations

import cv2
import numpy as np
import pytest

from personalive.face.face import Face, Float
from personalive.media.types import Image
from personalive.pipelines.preview.head_layout import HeadLayout
from personalive.pipelines.preview.matte import LAYER_SCALE, MattedPortrait, separate_head, to_layer_coords
from personalive.pipelines.preview.mesh import PixelRect, polygon_mask


@pytest.fixture(scope="module")
def cut(sample: Image, sample_layout: HeadLayout) -> MattedPortrait:
    return separate_head(sample, sample_layout)


def shrunk(image: Image, face: Face, side: int) -> tuple[Image, Float]:
    factor = side / image.shape[1]
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), face.landmarks * np.float32(factor)


def in_place(cutout: MattedPortrait) -> Image:
    height, width = cutout.background.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    where = np.dstack([to_layer_coords(x), to_layer_coords(y)])
    return cutout.compose(where, PixelRect(0, 0, width, height))


def cover_of(cutout: MattedPortrait) -> Image:
    height, width = cutout.background.shape[:2]
    alpha = np.ascontiguousarray(cutout.head[..., 3])
    return np.asarray(cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def through_the_sheet(image: Image) -> Image:
    """What enlarging and sampling do to a picture that is not cut at all."""
    height, width = image.shape[:2]
    large = cv2.resize(image, None, fx=LAYER_SCALE, fy=LAYER_SCALE, interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def test_the_cut_holds_the_whole_face(sample: Image, sample_layout: HeadLayout, cut: MattedPortrait) -> None:
    assert not cut.is_single_layer
    assert cut.head.shape == (LAYER_SCALE * 512, LAYER_SCALE * 512, 4)
    assert cut.background.shape == sample.shape
    page = PixelRect(0, 0, 512, 512)
    cover = cover_of(cut)
    inner = sample_layout.centre + (sample_layout.oval - sample_layout.centre) * np.float32(0.95)
    assert cover[polygon_mask(inner, page) == 1].min() >= 230
    assert cover[polygon_mask(sample_layout.oval, page) == 1].min() >= 100


def test_the_cut_ends_somewhere(sample_layout: HeadLayout, cut: MattedPortrait) -> None:
    cover = cover_of(cut)
    y, x = np.mgrid[0:512, 0:512].astype(np.float32)
    side, down = sample_layout.to_face_coords(np.column_stack([x.ravel(), y.ravel()]))
    beside = ((np.abs(side) > 1.2) & (down < 0.4)).reshape(512, 512)
    assert beside.sum() > 5000
    assert cover[beside].max() <= 2


def test_the_layers_give_the_portrait_back(sample: Image, cut: MattedPortrait) -> None:
    difference = cv2.absdiff(in_place(cut), through_the_sheet(sample)).max(axis=2)
    cover = cover_of(cut)
    assert (difference[cover >= 128] <= 4).mean() > 0.999, "the head itself"
    untouched = cv2.absdiff(cut.background, sample).max(axis=2) == 0
    assert untouched.mean() > 0.2
    assert difference[untouched & (cover == 0)].max() <= 4
    assert (difference <= 2).mean() > 0.97, "all but stray hair, which is painted over"
    assert difference.max() < 48


def test_the_background_has_no_head(sample: Image, sample_layout: HeadLayout, cut: MattedPortrait) -> None:
    face = polygon_mask(sample_layout.oval, PixelRect(0, 0, 512, 512)) == 1
    assert cv2.absdiff(cut.background, sample).max(axis=2)[face].mean() > 25
    shades = cut.background[face].astype(int)
    assert shades.std(axis=0).max() < sample[face].std(axis=0).max() / 1.5, "nothing of its features"


def test_the_same_portrait_gives_the_same_cut(sample: Image, sample_face: Face) -> None:
    small, landmarks = shrunk(sample, sample_face, 192)
    layout = HeadLayout.from_landmarks(landmarks)
    first = separate_head(small, layout)
    cv2.setRNGSeed(77)
    again = separate_head(small.copy(), layout)
    assert np.array_equal(first.head, again.head)
    assert np.array_equal(first.background, again.background)


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_picture_of_one_colour_stays_as_it_is(sample_face: Face, shade: int) -> None:
    layout = HeadLayout.from_landmarks(sample_face.landmarks * np.float32(96 / 512))
    flat = np.full((96, 96, 3), shade, np.uint8)
    cutout = separate_head(flat, layout)
    assert cv2.absdiff(in_place(cutout), flat).max() <= 2
    assert cv2.absdiff(cutout.background, flat).max() <= 1


def test_a_face_that_fills_the_picture_stays_in_one_piece(sample: Image, sample_face: Face) -> None:
    left, top, right, bottom = (int(v) for v in sample_face.box)
    close = np.ascontiguousarray(sample[top + 25 : bottom - 25, left + 25 : right - 25])
    offset = np.array([left + 25, top + 25, 0], np.float32)
    cutout = separate_head(close, HeadLayout.from_landmarks(sample_face.landmarks - offset))
    assert cutout.is_single_layer
    assert cutout.background.shape == close.shape
    assert cv2.absdiff(in_place(cutout), through_the_sheet(close)).max() <= 1


@pytest.mark.parametrize("offset", [(-60, 0), (-95, 0), (95, 0), (0, 70), (0, -70), (300, 0), (-300, -300)])
def test_a_face_at_or_over_the_edge_is_no_error(
    sample: Image, sample_face: Face, offset: tuple[float, float]
) -> None:
    small, landmarks = shrunk(sample, sample_face, 128)
    cutout = separate_head(small, HeadLayout.from_landmarks(landmarks + np.array([*offset, 0], np.float32)))
    assert cutout.head.shape == (LAYER_SCALE * 128, LAYER_SCALE * 128, 4)


def test_another_head_beside_is_background(sample: Image, sample_face: Face) -> None:
    small, landmarks = shrunk(sample, sample_face, 160)
    pair = np.ascontiguousarray(np.concatenate([small, small[:, ::-1]], axis=1))
    other = landmarks.copy()
    other[:, 0] = 319 - other[:, 0]
    cutout = separate_head(pair, HeadLayout.from_landmarks(landmarks), [HeadLayout.from_landmarks(other)])
    left, right = HeadLayout.from_landmarks(landmarks).oval, HeadLayout.from_landmarks(other).oval
    cover, page = cover_of(cutout), PixelRect(0, 0, 320, 160)
    assert cover[polygon_mask(left, page) == 1].mean() > 245
    assert cover[polygon_mask(right, page) == 1].max() == 0
    difference = cv2.absdiff(cutout.background, pair).max(axis=2)
    assert difference[polygon_mask(right, page) == 1].max() <= 1
