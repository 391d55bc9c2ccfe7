"""The driving clip, opened the right way up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from personalive.face.tracker import FaceDetector
from personalive.face.upright import usual_turn
from personalive.media import DrivingSource, Image, Rotation, open_driving
from personalive.offline.framing import turn_note

_SAMPLES, _APART = 5, 10
"""Frames that are looked at for which way up the clip is, and how many frames they are apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """A clip opened for its span, its frames turned clockwise by `turn` degrees; `notes` on what was chosen."""

    source: DrivingSource
    turn: int
    notes: tuple[str, ...]


def open_driver(path: Path, *, start: float, end: float | None, rotation: Rotation) -> Driver:
    """Open the driving clip `path` from `start` to `end` seconds, turned by `rotation`, to be closed by the caller.

    Raises `MediaError` for what cannot be read, `InputError` for a span that makes no sense.
    """
    turn = _turn(path, start, end) if rotation == "auto" else rotation
    source = open_driving(path, start=start, end=end, rotate=turn)
    notes = source.info.notes
    if rotation == "auto" and turn:
        notes = (*notes, turn_note(path.name, turn))
    return Driver(source, turn, notes)


def _turn(path: Path, start: float, end: float | None) -> int:
    with open_driving(path, start=start, end=end) as source, FaceDetector() as detector:
        return usual_turn(detector, _samples(source)) or 0


def _samples(source: DrivingSource) -> Iterator[Image]:
    for frame in itertools.islice(source, 0, _SAMPLES * _APART, _APART):
        yield frame.image
