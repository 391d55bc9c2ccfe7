"""The description of a job, and the report on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from personalive.errors import InputError
from personalive.face.choice import parse_reference_face
from personalive.media.rotation import Rotation, check_rotation
from personalive.pipelines.base import FrameState

ProgressCallback = Callable[[str, int, int | None], None]
"""Called in the caller's thread with the stage's name, frames done, and how many there will be, if known."""


def ignore_progress(stage: str, done: int, total: int | None) -> None:
    """Do nothing: the progress of a job whose caller wants none."""
    del stage, done, total


MIN_SEGMENT_FRAMES = 8
"""Fewest frames of a segment: more than an encoder reorders. Only the last segment may be shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateJob:
    """One portrait animated by one clip.

    `reference`: a picture, or a video whose first frame with a face is taken. `driving`: a video, an
    animation, a folder of numbered pictures or a still; a still drives one frame. `output`: a video, GIF or
    folder by its suffix, or a picture where one frame is asked for.
    """

    reference: Path
    driving: Path
    output: Path
    pipeline: str = "auto"
    """A registered name, or "auto" for the best that can run here."""
    size: int = 512
    """Side of the animated square in pixels; without `crop`, the shorter side. A multiple of 64, 256…1024."""
    crop: bool = True
    """Cut the reference to head and shoulders; False animates the whole picture."""
    paste_back: bool = False
    """Put the animated crop back into the whole still."""
    rotate: Rotation = "auto"
    """How far the driving clip is turned clockwise: 0, 90, 180 or 270 degrees, "auto" by the face in it."""
    rotate_reference: Rotation = "auto"
    """How far the reference is turned clockwise, with the same values."""
    face: str | int = "auto"
    """Which of the reference's faces is animated: auto, largest, left, right, its number from the left, or x,y in
    pixels of the upright picture."""
    face_box: str | None = None
    """Where the reference's face is, "x,y,width,height" in pixels of the picture: for a face that is not found."""
    side_by_side: bool = False
    """Show reference, driving and result next to each other."""
    fps: float | None = None
    """Frames per second of the output; None for the driving clip's own average."""
    start: float = 0.0
    """Seconds into the driving clip."""
    end: float | None = None
    """Seconds into the driving clip, exclusive."""
    max_frames: int | None = None
    """Write at most this many frames."""
    audio: bool = True
    """Copy the driving clip's sound to the output."""
    seed: int = 42
    overwrite: bool = False
    resume: bool = False
    """Work in segments, and continue where an earlier run of the same job was stopped; video files only."""
    segment_frames: int | None = None
    """With `resume`, a segment ends with the step that completes this many frames, 8 or more; None: 128."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Run and load parameters of the pipeline by name; those not given keep their defaults."""

    def check(self) -> None:
        """Raise `InputError` for invalid numbers and combinations, before any file is touched."""
        check_size(self.size)
        if not math.isfinite(self.start) or self.start < 0:
            raise InputError(f"The start must be 0 seconds or later, not {self.start:g}.")
        if self.end is not None and not self.end > self.start:
            raise InputError(f"The end ({self.end:g} s) must come after the start ({self.start:g} s).")
        if self.fps is not None and not (math.isfinite(self.fps) and 0 < self.fps <= 240):
            raise InputError(f"The frame rate must be between 0 and 240, not {self.fps:g}.")
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"At least one frame must be written, not {self.max_frames}.")
        if self.segment_frames is not None and self.segment_frames < MIN_SEGMENT_FRAMES:
            raise InputError(
                f"A segment must have {MIN_SEGMENT_FRAMES} frames or more, not {self.segment_frames}."
            )
        parse_reference_face(self.face, self.face_box)
        check_rotation(self.rotate)
        check_rotation(self.rotate_reference, "reference's rotation")
        for name, path in (("reference", self.reference), ("driving clip", self.driving)):
            if _is_same_file(path, self.output):
                raise InputError(f"The output would overwrite the {name}, {path}: choose another name.")


def check_size(size: int) -> None:
    """Raise `InputError` for a `size` that no job may have."""
    if not (256 <= size <= 1024 and size % 64 == 0):
        raise InputError(f"The size must be a multiple of 64 from 256 to 1024, not {size}.")


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class Report:
    """The report on a job. `seconds` is the time spent on the frames, without loading."""

    output: Path
    pipeline: str
    pipeline_name: str
    why: str
    """Why this pipeline was chosen."""
    width: int
    height: int
    fps: float
    """Frames per second of the output."""
    frames: int
    seconds: float
    states: dict[FrameState, int]
    """How many output frames there are in each state."""
    notes: tuple[str, ...]
    """Choices made for the user, one sentence each."""
    warnings: tuple[str, ...]
    """What may be wrong with the result, one sentence each."""

    @property
    def speed(self) -> float:
        """Frames made per second of work."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def duration(self) -> float:
        """Length of the output in seconds."""
        return self.frames / self.fps
