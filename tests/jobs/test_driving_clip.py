from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from personalive.errors import InputError
from personalive.jobs.animate_job import AnimateJob
from personalive.jobs.driving_clip import open_driving_clip
from personalive.media import Image, Rotation
from personalive.media.rotation import rotate_image


def folder_of(path: Path, images: list[Image]) -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        PIL.Image.fromarray(image).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def head(portrait: Image) -> Image:
    return np.ascontiguousarray(portrait[20:260, 95:355])


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_driver_is_brought_upright(tmp_path: Path, head: Image, turn: int) -> None:
    tall = np.vstack([head, np.full((60, 260, 3), 90, np.uint8)])
    clip = folder_of(tmp_path / "clip", [rotate_image(tall, (360 - turn) % 360)] * 3)
    driver = open_driving_clip(clip, start=0, end=None, rotation="auto")
    with driver.source as source:
        assert driver.rotation_degrees == source.info.rotation == turn
        assert (source.info.width, source.info.height) == (260, 300)
        assert all(np.array_equal(frame.image, tall) for frame in source)
    assert len(driver.notes) == bool(turn)
    if turn:
        assert f"clip {'is upside down' if turn == 180 else 'lies on its side'}" in driver.notes[0]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_what_is_asked_for_is_done(tmp_path: Path, head: Image, rotation: int) -> None:
    clip = folder_of(tmp_path / "clip", [rotate_image(head, 90)])
    driver = open_driving_clip(clip, start=0, end=None, rotation=rotation)
    with driver.source as source:
        assert np.array_equal(next(iter(source)).image, rotate_image(rotate_image(head, 90), rotation))
    assert (driver.rotation_degrees, driver.notes) == (rotation, ())


def test_a_driver_without_a_face_stays_as_it_is(tmp_path: Path) -> None:
    clip = folder_of(tmp_path / "clip", [np.full((64, 96, 3), 128, np.uint8)] * 2)
    driver = open_driving_clip(clip, start=0, end=None, rotation="auto")
    driver.source.close()
    assert (driver.rotation_degrees, driver.notes) == (0, ())


def test_one_frame_that_lies_does_not_turn_a_clip(tmp_path: Path, head: Image) -> None:
    clip = folder_of(tmp_path / "clip", [rotate_image(head, 90), *[head] * 10])
    driver = open_driving_clip(clip, start=0, end=None, rotation="auto")
    driver.source.close()
    assert driver.rotation_degrees == 0


@pytest.mark.parametrize("whole", [False, True])
def test_half_a_face_is_warned_about(tmp_path: Path, portrait: Image, whole: bool) -> None:
    clip = folder_of(
        tmp_path / "clip", [rotate_image(np.ascontiguousarray(portrait[:, 150 if whole else 205 :]), 90)]
    )
    driver = open_driving_clip(clip, start=0, end=None, rotation="auto")
    driver.source.close()
    assert driver.rotation_degrees == 270
    assert any("cut off at the picture's edge" in warning for warning in driver.warnings) == (not whole)


@pytest.mark.parametrize("rotation", [45, -90, 360, "90", "left", True, None])
def test_angles_that_cannot_be(tmp_path: Path, rotation: Rotation) -> None:
    plain = AnimateJob(reference=tmp_path / "a", driving=tmp_path / "b", output=tmp_path / "c.mp4")
    for job in (replace(plain, rotate=rotation), replace(plain, rotate_reference=rotation)):
        with pytest.raises(InputError, match="rotation must be auto, 0, 90, 180 or 270 degrees"):
            job.check()
