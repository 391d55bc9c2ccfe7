"""The picture types that the Python API accepts, and their conversion to arrays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import PIL.Image

from personalive.errors import InputError
from personalive.face.choice import FaceChoice
from personalive.face.face import Box
from personalive.jobs.reference_image import ReferenceImage, detect_reference, read_reference
from personalive.media import Image, Rotation, check_shape, read_image
from personalive.media.flatten import flatten
from personalive.media.types import Frames

FilePath = str | os.PathLike[str]
ImageInput = FilePath | PIL.Image.Image | Image
"""A path, a Pillow image, or uint8 RGB (height, width, 3)."""


def to_frames(frames: Frames | Image) -> list[Image]:
    """Return the single frames as copies: a camera may write into the same array again.

    Raises `InputError` unless they are uint8 RGB, one or many, of a shape that `check_shape` accepts.
    """
    array = np.asarray(frames)
    if array.dtype != np.uint8 or array.ndim not in {3, 4} or array.shape[-1] != 3:
        raise InputError(
            "Driving frames must be uint8 RGB of shape (frames, height, width, 3) or (height, width, 3), not "
            f"{array.dtype} {array.shape}."
        )
    check_shape(array.shape[-2], array.shape[-3], "A driving frame")
    return list(np.array(array if array.ndim == 4 else array[None]))


def to_rgb(image: ImageInput) -> Image:
    """Return a picture as uint8 RGB (height, width, 3).

    Raises `MediaError` for a file that cannot be read or a shape that cannot be used, `InputError` for an array of
    another shape or dtype.
    """
    if isinstance(image, PIL.Image.Image):
        check_shape(*image.size, "The portrait")
        return np.array(flatten(image), np.uint8)
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(f"A portrait must be uint8 RGB (height, width, 3), not {array.dtype} {array.shape}.")
    check_shape(array.shape[1], array.shape[0], "The portrait")
    return np.ascontiguousarray(array)


def to_reference(
    image: ImageInput,
    rotation: Rotation = "auto",
    *,
    choice: FaceChoice | None = None,
    face_box: Box | None = None,
) -> ReferenceImage:
    """Read a picture, or a video's first frame with a face, turned clockwise by `rotation`, and find its face.

    `choice` and `face_box` are those of `detect_reference`. Raises `NoFaceError` where there is none, and the
    errors of `to_rgb`.
    """
    choice = choice or FaceChoice()
    if isinstance(image, str | os.PathLike):
        return read_reference(Path(image), rotation, choice=choice, face_box=face_box)
    return detect_reference(to_rgb(image), rotation=rotation, choice=choice, face_box=face_box)
