"""The driving clip, opened the right way up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from personalive.face.tracker import FaceDetector
from personalive.face.upright import Upright, upright_frame
from personalive.jobs.reference_image import cut_off, turn_note
from personalive.media import DrivingSource, Image, Rotation, open_driving

_SAMPLES, _APART = 5, 10
"""Frames that are looked at for which way up the clip is, and how many frames they are apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """A clip opened for its span, its frames turned clockwise by `turn` degrees.

    `notes` say what was chosen, `warnings` what may be wrong with the clip, a sentence each.
    """

    source: DrivingSource
    turn: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def open_driver(path: Path, *, start: float, end: float | None, rotation: Rotation) -> Driver:
    """Open the driving clip `path` from `start` to `end` seconds, turned by `rotation`, to be closed by the caller.

    Raises `MediaError` for what cannot be read, `InputError` for a span that makes no sense.
    """
    if rotation != "auto":
        source = open_driving(path, start=start, end=end, rotate=rotation)
        return Driver(source, rotation, source.info.notes)
    seen = _look(path, start, end)
    turn = seen.turn if seen is not None else 0
    source = open_driving(path, start=start, end=end, rotate=turn)
    notes = (*source.info.notes, turn_note(path.name, turn)) if turn else source.info.notes
    return Driver(source, turn, notes, _doubts(seen, path.name))


def _look(path: Path, start: float, end: float | None) -> Upright | None:
    with open_driving(path, start=start, end=end) as source, FaceDetector() as detector:
        return upright_frame(detector, _samples(source))


def _samples(source: DrivingSource) -> Iterator[Image]:
    for frame in itertools.islice(source, 0, _SAMPLES * _APART, _APART):
        yield frame.image


def _doubts(seen: Upright | None, name: str) -> tuple[str, ...]:
    if seen is None or seen.face is None or not cut_off(seen.face, seen.size):
        return ()
    return (f"The face in {name} is cut off at the picture's edge: its motion may not be followed well.",)
