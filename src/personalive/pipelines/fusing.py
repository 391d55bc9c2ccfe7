"""Fuses portraits with pipelines that may be of another package."""

from __future__ import annotations

from typing import Any

from personalive.face.face import Box
from personalive.media.types import Image
from personalive.pipelines.base import Pipeline, Reference


def fuse_reference(
    pipeline: Pipeline[Any, Any], image: Image, face_box: Box | None, *, allow_no_face: bool = False
) -> Reference:
    """Return what `Pipeline.fuse` makes of a portrait, uint8 RGB (H, W, 3).

    A pipeline of another package may not know `face_box`: it is passed only where there is one.

    Raises `NoFaceError` where no face is found, unless allowed.
    """
    if face_box is None:
        return pipeline.fuse(image, allow_no_face=allow_no_face)
    return pipeline.fuse(image, allow_no_face=allow_no_face, face_box=face_box)
