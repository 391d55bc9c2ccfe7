"""What is to be shown live: portraits, source, targets, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from personalive.errors import InputError
from personalive.face.choice import parse_reference_face
from personalive.face.crop import ImageSize
from personalive.jobs.animate_job import check_size
from personalive.live.canvas import CANVAS_SIZE
from personalive.media import exact_rate
from personalive.media.rotation import Rotation, check_rotation

_SIDES = range(64, 3841)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveJob:
    """Portraits that follow a live source. `source` and `targets` are as `--from` and `--to` take them."""

    portraits: tuple[Path, ...]
    source: str = "0"
    targets: tuple[str, ...] = ("camera",)
    pipeline: str = "auto"
    size: int = 512
    """Side of the animated square in pixels; without `crop`, the shorter side. A multiple of 64, 256…1024."""
    crop: bool = True
    canvas: ImageSize | None = CANVAS_SIZE
    """Width and height of the picture that goes out, even; None for the animated frame alone."""
    background: str = "extend"
    mirror: bool = False
    rotate: Rotation = "auto"
    rotate_reference: Rotation = "auto"
    face: str | int = "auto"
    """Which of a portrait's faces is animated, of every portrait; as of `AnimateJob`."""
    face_box: str | None = None
    """Where the one portrait's face is, "x,y,width,height" in pixels of the picture."""
    fps: float = 30.0
    """Rate of files, and the one that virtual cameras are told."""
    sound: bool = False
    """Whether the driver's sound goes out: that of the source, which of a camera is the default microphone."""
    microphone: str | None = None
    """A microphone whose sound goes out instead, by its name."""
    speaker: str | None = None
    """A device to play the sound on, by its name."""
    watermark: bool = False
    overwrite: bool = False
    seed: int = 42
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Run and load parameters of the pipeline by name; those not given keep their defaults."""

    @property
    def has_sound(self) -> bool:
        """Whether sound goes out."""
        return self.sound or self.microphone is not None

    def check(self) -> None:
        """Raise `InputError` for invalid numbers and combinations, before anything is opened."""
        if not self.portraits:
            raise InputError("No portrait is given: personalive live PORTRAIT. More than one may be named.")
        if not self.targets:
            raise InputError("No target is given: --to camera, window, out.mp4, or whip:URL.")
        check_size(self.size)
        if self.speaker is not None and not self.has_sound:
            raise InputError(
                "--speaker plays the driver's sound: say which, with --sound or --microphone NAME."
            )
        if self.canvas is not None and any(side not in _SIDES or side % 2 for side in self.canvas):
            width, height = self.canvas
            raise InputError(
                f"The canvas must have even sides from {_SIDES.start} to {_SIDES.stop - 1}, not {width}×{height}."
            )
        if self.face_box is not None and len(self.portraits) > 1:
            raise InputError("A face box is of one picture: name one portrait, or leave --face-box out.")
        parse_reference_face(self.face, self.face_box)
        exact_rate(self.fps)
        check_rotation(self.rotate)
        check_rotation(self.rotate_reference, "reference's rotation")


def parse_canvas(text: str) -> ImageSize:
    """Return the width and height that a text such as 1280x720 stands for. Raises `InputError`."""
    width, cross, height = text.lower().replace("×", "x").partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise InputError(f"The canvas is given as WIDTHxHEIGHT, such as 1280x720, not {text!r}.")
    return int(width), int(height)
