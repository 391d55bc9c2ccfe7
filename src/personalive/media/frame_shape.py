"""The shapes that pictures and frames may have, for all inputs.

All later parts can process what passes here: OpenCV's warps, face networks, pipelines and encoders.
"""

from __future__ import annotations

from personalive.errors import MediaError, MediaTooLargeError

MAX_IMAGE_PIXELS = 40_000_000
"""The most pixels of a decoded picture or frame."""
MIN_SIDE = 16
MAX_SIDE = 16_384
MAX_ASPECT_RATIO = 16
"""The largest ratio of the longer side to the shorter."""


def describe_shape_problem(width: int, height: int) -> str | None:
    """Return why a picture of that size in pixels cannot be used, as the end of a sentence; None if it can."""
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        return f"each side needs {MIN_SIDE} pixels or more"
    if width * height > MAX_IMAGE_PIXELS:
        return f"up to {MAX_IMAGE_PIXELS // 1_000_000} megapixels are accepted"
    if long > MAX_SIDE:
        return f"sides of up to {MAX_SIDE} pixels are accepted: crop it"
    if long > MAX_ASPECT_RATIO * short:
        return f"it may be {MAX_ASPECT_RATIO} times as long as it is short, no more: crop it"
    return None


def check_shape(width: int, height: int, name: str, *, stored: tuple[int, int] | None = None) -> None:
    """Refuse a picture or frame whose shape cannot be used; `name` is what the message calls it.

    `stored` is the size to state where the picture's file has another.

    Raises `MediaTooLargeError` for one with too many pixels, `MediaError` for sides that are too short, too long or
    too unequal.
    """
    if reason := describe_shape_problem(width, height):
        kind = MediaTooLargeError if width * height > MAX_IMAGE_PIXELS else MediaError
        across, down = stored or (width, height)
        raise kind(f"{name} has {across}×{down} pixels: {reason}.")
