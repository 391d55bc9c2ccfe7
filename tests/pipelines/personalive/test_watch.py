from __future__ import annotations

import json

import numpy as np
import pytest

from personalive.face.crop import CropBox, cut
from personalive.media.types import Image
from personalive.pipelines.interface import FrameChunk
from personalive.pipelines.personalive.watch import Watch
from tests.pipelines.personalive.streams import picture


def chunk(images: list[Image], begin: float = 0.0) -> FrameChunk:
    return FrameChunk(np.stack(images), begin + np.arange(len(images)) / 25)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 160), (200, 100), (16, 16)])
def test_without_looking_the_largest_part_of_every_frame_is_a_face(height: int, width: int) -> None:
    watch = Watch((64, 128), detect=False)
    images = [picture(seed, height, width) for seed in range(3)]
    frames, found = watch.look(chunk(images))
    assert found == (True,) * 3
    assert frames.shape == (3, 128, 64, 3)
    box = CropBox.largest((width, height), 0.5)
    assert all(
        np.array_equal(frame, cut(image, box, (64, 128))) for frame, image in zip(frames, images, strict=True)
    )
    watch.close()


def test_frames_of_the_right_size_pass_as_they_are() -> None:
    image = picture(0)
    frames, _ = Watch((64, 64), detect=False).look(chunk([image]))
    assert np.array_equal(frames[0], image)


def test_it_says_where_there_is_a_face_and_cuts_around_it(portrait: Image) -> None:
    watch = Watch((64, 64), detect=True)
    grey = np.full_like(portrait, 128)
    frames, found = watch.look(chunk([portrait, grey, portrait]))
    assert found == (True, False, True)
    assert np.abs(frames[0].astype(int) - frames[2]).mean() < 8
    whole = cut(portrait, CropBox.largest((512, 512)), (64, 64))
    assert np.abs(frames[0].astype(int) - whole).mean() > 8
    watch.close()
    watch.close()


def test_it_goes_on_from_where_another_paused(portrait: Image) -> None:
    one, other = Watch((64, 64), detect=True), Watch((64, 64), detect=True)
    one.look(chunk([portrait, np.roll(portrait, 40, axis=1)]))
    other.resume(json.loads(json.dumps(one.pause())))
    later = chunk([np.roll(portrait, 60, axis=1)] * 2, begin=0.08)
    assert np.array_equal(one.look(later)[0], other.look(later)[0])
    one.close()
    other.close()


def test_after_a_reset_the_next_face_is_framed_at_once(portrait: Image) -> None:
    watch, fresh = Watch((64, 64), detect=True), Watch((64, 64), detect=True)
    watch.look(chunk([np.roll(portrait, 90, axis=1)]))
    watch.reset()
    later = chunk([portrait], begin=0.04)
    assert np.array_equal(watch.look(later)[0], fresh.look(later)[0])
    watch.close()
    fresh.close()
