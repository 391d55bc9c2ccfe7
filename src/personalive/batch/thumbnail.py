"""Thumbnails of results, for the report."""

from __future__ import annotations

import io
from pathlib import Path

import PIL.Image

from personalive.errors import PersonaLiveError
from personalive.jobs import Report
from personalive.media import Image, open_driving

_HEIGHT = 96
_QUALITY = 70


def make_thumbnail(path: Path, report: Report) -> bytes | None:
    """Return the middle frame of a result as a JPEG, 96 pixels high; None where it cannot be read."""
    try:
        with open_driving(path, start=report.duration / 2 if report.frames > 1 else 0.0) as source:
            frame = next(iter(source), None)
    except PersonaLiveError:  # a job must not fail for its thumbnail
        return None
    return None if frame is None else _encode_jpeg(frame.image)


def _encode_jpeg(image: Image) -> bytes:
    height, width = image.shape[:2]
    picture = PIL.Image.fromarray(image).resize((max(round(width * _HEIGHT / height), 1), _HEIGHT))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY, optimize=True)
    return data.getvalue()
