"""The types that readers, pipelines and writers exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""RGB, (height, width, 3) uint8 in 0..255, C-contiguous."""

Frames: TypeAlias = NDArray[np.uint8]
"""RGB, (count, height, width, 3) uint8 in 0..255, C-contiguous."""


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a clip that are known before its frames are read.

    `width` and `height` are those of the frames as delivered: upright and with square pixels. `rotation` is the
    clockwise rotation that made the stored picture upright, in degrees (0, 90, 180 or 270). `fps` is the usual rate
    in frames per second. `duration` (seconds) and `frames` are the header's claims, None where it makes none; a
    damaged file delivers fewer. `notes` say which of several picture tracks was chosen, and `sound_notes` the same
    of sound, a sentence each.
    """

    width: int
    height: int
    fps: float
    duration: float | None
    frames: int | None
    rotation: int
    has_audio: bool
    notes: tuple[str, ...] = ()
    sound_notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoFrame:
    """One picture of a clip: shown from `time` for `duration` (both seconds from the start of the stream).

    `image` is (height, width, 3) uint8 RGB. `index` counts the frames delivered, from 0. A frame that is
    shown more than once after resampling shares its array with its repeats, so treat it as read-only.
    """

    image: Image
    time: float
    index: int
    duration: float
