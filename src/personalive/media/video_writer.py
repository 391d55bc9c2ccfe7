"""Opening an output by its path."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

from personalive.errors import InputError, MediaError, MediaTooLargeError
from personalive.media.atomic_writer import VideoWriter
from personalive.media.audio import AudioTrack, open_audio
from personalive.media.container_writer import ContainerWriter
from personalive.media.frame_shape import MAX_IMAGE_PIXELS
from personalive.media.gif_writer import GifWriter
from personalive.media.output import check_output
from personalive.media.png_writer import PngWriter
from personalive.media.provenance import Provenance

_MAX_FPS = 1000
_MAX_QUALITY = {"mp4": 51, "mov": 51, "webm": 63}
# A number this close to a television rate means that rate: 29.97 is 30000/1001.
_NTSC_TOLERANCE = 5e-4


def open_writer(
    path: str | Path,
    *,
    width: int,
    height: int,
    fps: float,
    provenance: Provenance,
    audio: AudioTrack | None = None,
    overwrite: bool = False,
    quality: int | None = None,
) -> VideoWriter:
    """Open an output for frames of width × height at `fps`, of the kind that its path asks for.

    `.mp4`, `.m4v` and `.mov` hold H.264 with the index in front; an odd width or height is made even by
    repeating the last column or row. `.webm` holds VP9. Both are BT.709, and get the sound of `audio`, cut to
    the length of the video. `.gif` loops and has a palette per frame. A folder, or a pattern such as
    "out/%05d.png", gets numbered PNG files from 1 on. GIF and PNG hold no sound; a warning says so.

    `quality` is the constant rate factor of H.264 (0 to 51, by default 18) or VP9 (0 to 63, by default 31);
    less is better. GIF and PNG ignore it.

    Output is written beside its target under a hidden name and renamed when complete; see `VideoWriter`.

    Raises:
        OutputExistsError: the output exists and `overwrite` is False.
        InputError: the suffix, size, rate or quality is invalid.
        MediaError: the output cannot be created at its path.

    """
    kind = check_output(path, overwrite)
    rate = exact_rate(fps)
    if width < 1 or height < 1:
        raise InputError(f"A video cannot be {width}×{height} pixels.")
    if width * height > MAX_IMAGE_PIXELS:
        most = MAX_IMAGE_PIXELS // 1_000_000
        raise MediaTooLargeError(
            f"{path} would have {width}×{height} pixels: {most} megapixels are the most."
        )
    limit = _MAX_QUALITY.get(kind)
    if quality is not None and limit is not None and not 0 <= quality <= limit:
        raise InputError(f"The quality of {kind} goes from 0 (best) to {limit}, not {quality}.")
    path, size = Path(path), (width, height)
    if kind in _MAX_QUALITY:
        return ContainerWriter(
            path,
            kind,
            size=size,
            rate=rate,
            provenance=provenance,
            audio=audio,
            overwrite=overwrite,
            quality=quality,
        )
    writer: GifWriter | PngWriter
    if kind == "gif":
        writer = GifWriter(path, size=size, rate=rate, provenance=provenance, overwrite=overwrite)
    else:
        writer = PngWriter(path, size=size, provenance=provenance, overwrite=overwrite)
    writer.warnings.extend(_sound_left_out(audio, kind))
    return writer


def exact_rate(fps: float) -> Fraction:
    """Return the exact rate that a number of frames per second stands for: 29.97 is 30000/1001.

    Raises:
        InputError: `fps` is not a number between 0 and 1000.

    """
    if not math.isfinite(fps) or not 0 < fps <= _MAX_FPS:
        raise InputError(f"The frame rate must lie between 0 and {_MAX_FPS}, not {fps:g}.")
    television = Fraction(round(fps * 1.001) * 1000, 1001)
    if television and abs(fps - television) < _NTSC_TOLERANCE:
        return television
    return Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)


def _sound_left_out(audio: AudioTrack | None, kind: str) -> list[str]:
    if audio is None:
        return []
    try:
        source = open_audio(audio)
    except MediaError:
        return []
    if source is None:
        return []
    source.close()
    return [f"{kind.upper()} holds no sound: that of {source.name} is left out."]
