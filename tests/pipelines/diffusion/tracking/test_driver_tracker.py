from __future__ import annotations

import json

import numpy as np
import pytest

from personalive.face.crop import CropBox, extract_crop
from personalive.media.types import Image
from personalive.pipelines.diffusion.tracking.driver_tracker import DriverTracker, TrackedFrame
from tests.pipelines.diffusion.streams import picture


def look(tracker: DriverTracker, images: list[Image], begin: float = 0.0) -> list[TrackedFrame]:
    return [tracker.analyze(image, begin + index / 25) for index, image in enumerate(images)]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 160), (200, 100), (16, 16)])
def test_without_detection_the_largest_part_of_every_frame_is_a_face(height: int, width: int) -> None:
    tracker = DriverTracker((64, 128), detect=False)
    images = [picture(seed, height, width) for seed in range(3)]
    box = CropBox.largest((width, height), 0.5)
    for tracked, image in zip(look(tracker, images), images, strict=True):
        assert tracked.has_face
        assert tracked.crop.shape == (128, 64, 3)
        assert np.array_equal(tracked.crop, extract_crop(image, box, (64, 128)))
    tracker.close()


def test_frames_of_the_right_size_pass_as_they_are() -> None:
    image = picture(0)
    assert np.array_equal(DriverTracker((64, 64), detect=False).analyze(image, 0.0).crop, image)


def test_it_says_where_there_is_a_face_and_cuts_around_it(portrait: Image) -> None:
    tracker = DriverTracker((64, 64), detect=True)
    first, second, third = look(tracker, [portrait, np.full_like(portrait, 128), portrait])
    assert (first.has_face, second.has_face, third.has_face) == (True, False, True)
    assert np.abs(first.crop.astype(int) - third.crop).mean() < 8
    whole = extract_crop(portrait, CropBox.largest((512, 512)), (64, 64))
    assert np.abs(first.crop.astype(int) - whole).mean() > 8
    tracker.close()
    tracker.close()


def test_it_continues_from_the_state_of_another(portrait: Image) -> None:
    one, other = DriverTracker((64, 64), detect=True), DriverTracker((64, 64), detect=True)
    look(one, [portrait, np.roll(portrait, 40, axis=1)])
    state = json.loads(json.dumps(one.state()))
    one.restore(state)
    other.restore(state)
    later = [np.roll(portrait, 60, axis=1)] * 2
    for mine, theirs in zip(look(one, later, 0.08), look(other, later, 0.08), strict=True):
        assert np.array_equal(mine.crop, theirs.crop)
    one.close()
    other.close()


def test_after_a_reset_the_next_face_is_framed_at_once(portrait: Image) -> None:
    tracker, fresh = DriverTracker((64, 64), detect=True), DriverTracker((64, 64), detect=True)
    tracker.analyze(np.roll(portrait, 90, axis=1), 0.0)
    tracker.reset()
    assert np.array_equal(tracker.analyze(portrait, 0.04).crop, fresh.analyze(portrait, 0.04).crop)
    tracker.close()
    fresh.close()
