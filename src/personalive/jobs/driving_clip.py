"""The driving clip, opened the right way up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from personalive.errors import FaceChoiceError
from personalive.face.choice import FaceChoice, describe_faces, has_rivals, list_faces, parse_face_choice
from personalive.face.tracker import FaceDetector
from personalive.face.upright import UprightImage, find_upright_frame
from personalive.jobs.reference_image import is_face_cut_off, rotation_note
from personalive.media import Image, Rotation, VideoReader, open_driving

_SAMPLE_COUNT, _SAMPLE_INTERVAL = 5, 10
"""How many frames are searched to find which way up the clip is, and how many frames apart they are."""


@dataclass(frozen=True, slots=True, eq=False)
class DrivingClip:
    """A clip opened for its span, its frames turned clockwise by `rotation_degrees` degrees.

    `notes` say what was chosen, `warnings` what may be wrong with the clip, one sentence each.
    """

    source: VideoReader
    rotation_degrees: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def open_driving_clip(
    path: Path, *, start: float, end: float | None, rotation: Rotation, choice: FaceChoice | None = None
) -> DrivingClip:
    """Open the driving clip `path` from `start` to `end` seconds, turned by `rotation`. The caller closes it.

    `choice`: which of its faces will be followed.

    Raises `MediaError` for a clip that cannot be read, `InputError` for an invalid span, `FaceChoiceError` where
    the first frames with faces do not show the chosen one.
    """
    choice = choice or FaceChoice()
    if rotation != "auto":
        if not choice.is_auto:
            _check_choice(path, start, end, rotation, choice)
        source = open_driving(path, start=start, end=end, rotate=rotation)
        return DrivingClip(source, rotation, source.info.notes)
    seen = _detect_orientation(path, start, end)
    turn = seen.rotation if seen is not None else 0
    if not choice.is_auto and seen is not None and choice.pick(seen.faces, seen.size) is None:
        _check_choice(path, start, end, turn, choice)
    source = open_driving(path, start=start, end=end, rotate=turn)
    notes = (*source.info.notes, rotation_note(path.name, turn)) if turn else source.info.notes
    if choice.is_auto and seen is not None:
        notes = (*notes, *_rival_notes(seen, path.name))
    return DrivingClip(source, turn, notes, _orientation_warnings(seen, path.name))


def parse_driver_face(run_parameters: Mapping[str, object]) -> FaceChoice | None:
    """Return which face run parameters by name choose; None where they choose none. Raises `InputError`."""
    value = run_parameters.get("driver_face")
    return parse_face_choice(value) if isinstance(value, str | int) else None


def _check_choice(path: Path, start: float, end: float | None, degrees: int, choice: FaceChoice) -> None:
    """Raise `FaceChoiceError` where the first frames show faces, but not the chosen one."""
    first: FaceChoiceError | None = None
    with open_driving(path, start=start, end=end, rotate=degrees) as source, FaceDetector() as detector:
        for image in _sample_frames(source):
            faces, size = detector.detect(image, reach="far"), (image.shape[1], image.shape[0])
            if choice.pick(faces, size) is not None:
                return
            boxes = list_faces(faces)
            if boxes and (first is None or len(boxes) > len(first.boxes)):
                first = FaceChoiceError(
                    f"{path.name} has no face {choice}, but these: {describe_faces(boxes)}.",
                    "Choose one of these to be followed (--driver-face).",
                    boxes=boxes,
                    size=size,
                    rotation=degrees,
                )
    if first is not None:
        raise first


def _rival_notes(seen: UprightImage, name: str) -> tuple[str, ...]:
    """Return a note on which face is followed, where several are equally prominent."""
    if seen.face is None or not has_rivals(seen.faces, seen.size):
        return ()
    boxes = list_faces(seen.faces)
    number = boxes.index(seen.face.box) + 1
    return (
        f"{name} shows {len(boxes)} faces, and number {number} is followed: {describe_faces(boxes)}. "
        "Another is chosen by its number (--driver-face).",
    )


def _detect_orientation(path: Path, start: float, end: float | None) -> UprightImage | None:
    with open_driving(path, start=start, end=end) as source, FaceDetector() as detector:
        return find_upright_frame(detector, _sample_frames(source))


def _sample_frames(source: VideoReader) -> Iterator[Image]:
    for frame in itertools.islice(source, 0, _SAMPLE_COUNT * _SAMPLE_INTERVAL, _SAMPLE_INTERVAL):
        yield frame.image


def _orientation_warnings(seen: UprightImage | None, name: str) -> tuple[str, ...]:
    if seen is None or seen.face is None or not is_face_cut_off(seen.face, seen.size):
        return ()
    return (f"The face in {name} is cut off at the picture's edge: its motion may not be followed well.",)
