"""The driving clip, opened the right way up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


def open_driving_clip(path: Path, *, start: float, end: float | None, rotation: Rotation) -> DrivingClip:
    """Open the driving clip `path` from `start` to `end` seconds, turned by `rotation`. The caller closes it.

    Raises `MediaError` for a clip that cannot be read, `InputError` for an invalid span.
    """
    if rotation != "auto":
        source = open_driving(path, start=start, end=end, rotate=rotation)
        return DrivingClip(source, rotation, source.info.notes)
    seen = _detect_orientation(path, start, end)
    turn = seen.rotation if seen is not None else 0
    source = open_driving(path, start=start, end=end, rotate=turn)
    notes = (*source.info.notes, rotation_note(path.name, turn)) if turn else source.info.notes
    return DrivingClip(source, turn, notes, _orientation_warnings(seen, path.name))


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
