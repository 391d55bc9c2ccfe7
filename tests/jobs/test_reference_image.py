from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import FaceChoiceError, InputError, MediaError, NoFaceError, UnsupportedMediaError
from personalive.face.choice import parse_face_choice
from personalive.face.tracker import FaceDetector
from personalive.jobs.reference_image import crop_to_face, fit_whole_image, read_reference, size_for_aspect
from personalive.media.rotation import rotate_image
from personalive.media.types import Image


def saved(path: Path, image: Image) -> Path:
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def test_the_crop_shows_the_face(portrait_file: Path) -> None:
    portrait = read_reference(portrait_file)
    framing = crop_to_face(portrait, (512, 512))
    assert framing.image.shape == (512, 512, 3)
    assert framing.warnings == ()
    with FaceDetector() as detector:
        face = detector.detect_dominant(framing.image)
    assert face is not None
    assert face.centre == pytest.approx((256, 240), abs=40)


def test_of_a_video_the_first_frame_with_a_face_is_taken(clip: Path) -> None:
    portrait = read_reference(clip)
    assert portrait.size == (320, 240)
    assert portrait.notes == ("clip.mp4 is a video: its frame at 0.00 s is the reference.",)


def test_a_video_that_begins_without_a_face(tmp_path: Path, portrait: Image) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for k in range(4):
        saved(folder / f"{k}.png", portrait if k == 3 else np.full_like(portrait, 128))
    with pytest.raises(MediaError, match="directory"):
        read_reference(folder)


def test_of_several_faces_one_must_be_chosen(tmp_path: Path, portrait: Image) -> None:
    head = portrait[0:260, 95:355]
    two = saved(tmp_path / "two.png", np.hstack([head, head[:, ::-1]]))
    with pytest.raises(
        FaceChoiceError, match=r"2 faces .*1: left, \d+×\d+ px at .*; 2: right.*--face"
    ) as caught:
        read_reference(two)
    assert [box[0] < 260 for box in caught.value.boxes] == [True, False]
    assert caught.value.size == (520, 260)
    with pytest.raises(FaceChoiceError, match="no face 3, but these"):
        read_reference(two, choice=parse_face_choice(3))
    for choice, on_the_right in (("left", False), ("2", True), ("390,120", True)):
        found = read_reference(two, choice=parse_face_choice(choice))
        assert (found.face.centre[0] > 260) == on_the_right
        crop = fit_whole_image(found, (512, 256))
        assert crop.face_box is not None
        assert (crop.face_box[0] > 256) == on_the_right


def test_a_face_that_stands_out_is_taken_and_noted(tmp_path: Path, portrait: Image) -> None:
    head = portrait[0:260, 95:355]
    small = np.full_like(head, 128)
    small[40:240, 30:230] = cv2.resize(head, (200, 200))
    two = read_reference(saved(tmp_path / "two.png", np.hstack([head, small])))
    assert "shows more than one face, and number 1 is animated" in two.notes[0]
    assert not two.chosen


def test_a_box_stands_for_a_face_that_is_not_found(tmp_path: Path, portrait: Image) -> None:
    grey = saved(tmp_path / "grey.png", np.full((300, 400, 3), 128, np.uint8))
    with pytest.raises(FaceChoiceError, match="--face-box"):
        read_reference(grey)
    placed = read_reference(grey, face_box=(150, 100, 250, 200))
    assert placed.face.box == pytest.approx((150, 100, 250, 200), abs=0.01)
    assert "No face is recognized" in placed.notes[0]
    assert crop_to_face(placed, (256, 256)).face_box is not None
    with pytest.raises(InputError, match="not in the picture"):
        read_reference(grey, face_box=(900, 100, 1000, 200))
    real = read_reference(saved(tmp_path / "face.png", portrait), face_box=(175, 60, 275, 190))
    assert real.notes == ()
    assert real.face.centre == pytest.approx((225, 125), abs=8)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_portrait_that_lies_or_stands_on_its_head_is_turned(
    tmp_path: Path, portrait: Image, turn: int
) -> None:
    stored = saved(tmp_path / "turned.png", rotate_image(portrait, 360 - turn))
    found = read_reference(stored)
    assert found.rotation_degrees == turn
    assert np.array_equal(found.image, portrait)
    assert found.face.centre == pytest.approx((225, 125), abs=6)
    (note,) = found.notes
    assert note.startswith("turned.png is upside down" if turn == 180 else "turned.png lies on its side")
    assert f"rotated by {turn}° clockwise" in note


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_rotation_that_is_asked_for(tmp_path: Path, portrait: Image, turn: int) -> None:
    stored = saved(tmp_path / "turned.png", rotate_image(portrait, (360 - turn) % 360))
    found = read_reference(stored, turn)
    assert np.array_equal(found.image, portrait)
    assert found.notes == ()
    wrong = (turn + 90) % 360
    with pytest.raises(NoFaceError, match=f"is not upright when it is rotated by {wrong}°"):
        read_reference(stored, wrong)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_portrait_video_is_turned_too(tmp_path: Path, portrait: Image, turn: int) -> None:
    small = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA).astype(np.uint8)
    frames = [PIL.Image.fromarray(rotate_image(image, 360 - turn)) for image in (small, small[:, ::-1])]
    path = tmp_path / "turned.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    found = read_reference(path)
    assert found.rotation_degrees == turn
    assert found.face.centre == pytest.approx((112, 62), abs=6)
    assert f"rotated by {turn}° clockwise" in found.notes[1]
    assert read_reference(path, turn).rotation_degrees == turn


def test_half_a_face_is_warned_about(tmp_path: Path, portrait: Image) -> None:
    half = read_reference(saved(tmp_path / "half.png", portrait[:, 205:]))
    whole = read_reference(saved(tmp_path / "whole.png", portrait[:, 160:]))
    for frame in (crop_to_face, fit_whole_image):
        assert any("cut off at the picture's edge" in warning for warning in frame(half, (512, 512)).warnings)
        assert not any("cut off" in warning for warning in frame(whole, (512, 512)).warnings)


def test_another_kind_of_picture_is_told_to_be_converted(tmp_path: Path, portrait: Image) -> None:
    odd = saved(tmp_path / "portrait.bmp", portrait)
    with pytest.raises(
        UnsupportedMediaError, match="neither a JPEG, PNG, WebP, HEIC or AVIF picture nor a video"
    ):
        read_reference(odd)


@pytest.mark.slow
def test_a_face_in_the_distance_of_a_large_picture_is_found(tmp_path: Path, portrait: Image) -> None:
    canvas = np.full((3000, 4000, 3), 128, np.uint8)
    canvas[1500:1756, 2500:2756] = portrait[0:512:2, 0:512:2]
    found = read_reference(saved(tmp_path / "far.png", canvas))
    assert found.face.centre == pytest.approx((2500 + 225 / 2, 1500 + 125 / 2), abs=6)


def test_no_face_says_what_to_do(tmp_path: Path) -> None:
    grey = saved(tmp_path / "grey.png", np.full((200, 300, 3), 128, np.uint8))
    with pytest.raises(NoFaceError, match=r"No face was found in grey\.png\. Use a picture"):
        read_reference(grey)


def test_a_small_face_is_warned_about(tmp_path: Path, portrait: Image) -> None:
    small = read_reference(saved(tmp_path / "small.png", cv2.resize(portrait, (200, 200)).astype(np.uint8)))
    assert "pixels high" in crop_to_face(small, (512, 512)).warnings[0]
    far = np.full((900, 900, 3), 128, np.uint8)
    far[300:700, 300:700] = cv2.resize(portrait, (400, 400), interpolation=cv2.INTER_AREA)
    shot = read_reference(saved(tmp_path / "far.png", far))
    assert "fills only" in fit_whole_image(shot, (512, 512)).warnings[0]


@pytest.mark.parametrize(
    ("image", "side", "expected"),
    [
        ((1000, 1000), 512, (512, 512)),
        ((4032, 3024), 512, (704, 512)),
        ((3024, 4032), 512, (512, 704)),
        ((1920, 1080), 512, (896, 512)),
        ((1920, 1080), 1024, (1024, 576)),
        ((6000, 1000), 512, (1024, 256)),
        ((100, 101), 256, (256, 256)),
    ],
)
def test_the_whole_pictures_size(image: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert size_for_aspect(image, side) == expected


@given(st.tuples(st.integers(16, 6000), st.integers(16, 6000)), st.integers(4, 16))
def test_the_whole_pictures_size_is_always_possible_and_close(
    image: tuple[int, int], sixty_fourths: int
) -> None:
    width, height = size_for_aspect(image, 64 * sixty_fourths)
    assert 256 <= width <= 1024
    assert 256 <= height <= 1024
    assert width % 64 == height % 64 == 0
    aspect = image[0] / image[1]
    if 0.25 <= aspect <= 4:
        assert 0.85 < (width / height) / aspect < 1 / 0.85


def test_a_cut_never_goes_through_the_face(tmp_path: Path, portrait: Image) -> None:
    wide = np.full((300, 1800, 3), 128, np.uint8)
    wide[20:280, 20:280] = portrait[0:260, 95:355]
    shot = read_reference(saved(tmp_path / "wide.png", wide))
    framing = fit_whole_image(shot, (1024, 256))
    left, _, right, _ = shot.face.box
    assert framing.box.left <= left < right <= framing.box.right
    assert framing.box.is_inside((1800, 300))
