from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.face.crop import CropBox, FollowCrop, compute_reference_crop, extract_crop, measure_head
from personalive.face.face import Face
from personalive.face.tracker import FaceDetector
from personalive.media.types import Image


def moved(face: Face, x: float, y: float = 0.0) -> Face:
    return face.scale(1.0, (x, y))


@pytest.mark.parametrize("aspect", [1.0, 0.75, 16 / 9])
def test_the_reference_crop_frames_head_and_shoulders(
    portrait: Image, face: Face, detector: FaceDetector, aspect: float
) -> None:
    box = compute_reference_crop(face, (512, 512), aspect)
    assert box.width / box.height == pytest.approx(aspect)
    assert box.is_inside((512, 512))
    found = detector.detect_dominant(extract_crop(portrait, box, (round(512 * aspect), 512)))
    assert found is not None
    _, top, _, bottom = found.box
    assert 0.36 * 512 < bottom - top < 0.46 * 512
    assert 0.42 * 512 < (top + bottom) / 2 < 0.52 * 512


def test_a_tight_portrait_is_padded_rather_than_filled_with_face(
    portrait: Image, detector: FaceDetector
) -> None:
    tight = portrait[66:186, 172:280]
    found = detector.detect_dominant(tight)
    assert found is not None
    box = compute_reference_crop(found, (108, 120))
    assert not box.is_inside((108, 120))
    assert measure_head(found)[2] / box.height == pytest.approx(0.7, abs=0.01)


def test_a_face_at_the_edge_stays_in_the_crop(portrait: Image, detector: FaceDetector) -> None:
    found = detector.detect_dominant(portrait[:, 185:])
    assert found is not None
    box = compute_reference_crop(found, (512 - 185, 512))
    assert box.left < found.box[0] < found.box[2] < box.right
    assert box.top < found.box[1] < found.box[3] < box.bottom


def test_a_narrow_crop_keeps_the_ears(face: Face) -> None:
    box = compute_reference_crop(face, (512, 512), 0.25)
    assert box.width >= 1.09 * measure_head(face)[2]


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(40, 3000), st.integers(40, 3000)),
    factor=st.floats(0.05, 3),
    offset=st.tuples(st.floats(-200, 1000), st.floats(-200, 1000)),
    aspect=st.floats(0.3, 3.5),
)
def test_any_reference_crop_has_its_aspect_and_holds_the_heads_centre(
    face: Face, size: tuple[int, int], factor: float, offset: tuple[float, float], aspect: float
) -> None:
    there = face.scale(factor, offset)
    box = compute_reference_crop(there, size, aspect)
    x, y, _ = measure_head(there)
    assert box.width / box.height == pytest.approx(aspect)
    assert box.left < x < box.right
    assert box.top < y < box.bottom


def test_cutting_the_whole_image_at_its_size_changes_nothing(portrait: Image) -> None:
    whole = extract_crop(portrait, CropBox(0, 0, 512, 512), (512, 512))
    assert np.array_equal(whole, portrait)
    assert whole is not portrait
    assert np.array_equal(
        extract_crop(portrait, CropBox(10, 20, 100, 90), (100, 90)), portrait[20:110, 10:110]
    )


def test_shrinking_averages_areas(portrait: Image) -> None:
    for side in (256, 128, 32):
        block = 512 // side
        small = extract_crop(portrait, CropBox(0, 0, 512, 512), (side, side)).astype(float)
        mean = portrait.reshape(side, block, side, block, 3).mean((1, 3))
        assert np.abs(small - mean).max() <= 1.0


def test_fractions_of_a_pixel_are_kept() -> None:
    ramp = np.broadcast_to((4 * np.arange(60)).astype(np.uint8)[None, :, None], (60, 60, 3))
    for size in (15, 30, 90):
        base = extract_crop(ramp, CropBox(10, 10, 30, 30), (size, size)).astype(float).mean()
        shifted = extract_crop(ramp, CropBox(10.5, 10, 30, 30), (size, size)).astype(float).mean()
        assert shifted - base == pytest.approx(2.0, abs=0.1)


def test_outside_is_soft_and_inside_untouched(portrait: Image) -> None:
    wide = extract_crop(portrait, CropBox(-100, -100, 712, 712), (712, 712))
    assert np.array_equal(wide[100:612, 100:612], portrait)
    rows = np.abs(np.diff(wide[120:600, 20].astype(int), axis=0))
    edge = np.abs(np.diff(portrait[20:500, 0].astype(int), axis=0))
    assert rows.max() <= 12 < edge.max()


def test_a_box_far_outside_and_a_huge_one_are_cut(portrait: Image) -> None:
    outside = extract_crop(portrait, CropBox(2000, 2000, 50, 50), (64, 64))
    assert np.abs(outside.astype(int) - portrait[-1, -1].astype(int)).max() <= 1
    assert extract_crop(portrait, CropBox(-30000, -30000, 70000, 70000), (32, 32)).shape == (32, 32, 3)


def test_a_box_without_extent_is_refused() -> None:
    with pytest.raises(ValueError, match="not a rectangle"):
        CropBox(0, 0, 0, 10)
    with pytest.raises(ValueError, match="not a rectangle"):
        CropBox(float("nan"), 0, 10, 10)


def test_following_a_still_face_does_not_move_at_all(face: Face) -> None:
    noise = np.random.default_rng(1)
    follow = FollowCrop()
    boxes = set()
    for k in range(90):
        shaken = replace(
            face, landmarks=face.landmarks + noise.normal(0, 0.5, face.landmarks.shape).astype(np.float32)
        )
        boxes.add(follow.update(shaken, (512, 512), k / 30))
    assert len(boxes) == 1


def test_following_a_moving_face_is_smooth_and_keeps_up(face: Face) -> None:
    follow = FollowCrop(aspect=0.75)
    lefts, heads = [], []
    for k in range(120):
        x = 60 * np.sin(k / 30 * 2)
        box = follow.update(moved(face, x), (512, 512), k / 30)
        assert box.width / box.height == pytest.approx(0.75)
        lefts.append(box.left)
        heads.append((measure_head(moved(face, x))[0] - box.left) / box.width)
    assert np.ptp(lefts) > 80
    assert max(heads) < 0.75
    assert min(heads) > 0.25
    assert np.abs(np.diff(lefts, 2)).max() < 1.5


def test_a_lost_face_leaves_the_crop_in_place(face: Face) -> None:
    follow = FollowCrop()
    assert follow.update(None, (640, 480), 0.0) == CropBox(80, 0, 480, 480)
    first = follow.update(face, (640, 480), 0.1)
    for k in range(60):
        assert follow.update(None, (640, 480), 0.2 + k / 30) == first


def test_the_crop_grows_with_a_face_that_comes_closer(face: Face) -> None:
    follow = FollowCrop()
    first = follow.update(face, (512, 512), 0.0)
    last = first
    for k in range(1, 90):
        last = follow.update(face.scale(1 + k / 90), (512, 512), k / 30)
    assert last.height > 1.7 * first.height


def test_a_new_size_or_a_reset_frames_the_next_face_at_once(face: Face) -> None:
    follow = FollowCrop()
    first = follow.update(face, (512, 512), 0.0)
    follow.update(moved(face, 100), (512, 512), 0.1)
    shifted = follow.update(moved(face, 100), (800, 800), 0.2)
    assert shifted.left == pytest.approx(first.left + 100, abs=0.01)
    follow.reset()
    assert follow.update(face, (800, 800), 0.3).left == pytest.approx(first.left, abs=0.01)
