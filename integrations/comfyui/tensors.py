"""Conversion between ComfyUI's images and the package's frames.

ComfyUI's IMAGE is a float tensor (frames, height, width, channels), 0…1; its MASK is (frames, height, width), and 1
is transparent. The package's frames are uint8 RGB (height, width, 3).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.media import Image, VideoFrame
from personalive.media.frame_shape import check_shape

_RGBA_CHANNELS = 4


def to_frame(picture: Tensor) -> Image:
    """Return a picture (height, width, channels) as a frame, without its transparency."""
    rgb = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].expand(-1, -1, 3)
    levels = rgb.detach().to("cpu", torch.float32).mul(255.0).round_().clamp_(0.0, 255.0)
    return np.ascontiguousarray(levels.to(torch.uint8).numpy())


def to_portrait(images: Tensor, mask: Tensor | None) -> Image:
    """Return the first picture of a batch as a frame; what the mask or its alpha makes transparent becomes white.

    Raises `InputError` for an empty batch and for a mask of another size.
    """
    check_images(images, "The portrait")
    picture = images[0].detach().to("cpu", torch.float32)
    covered: Tensor | None = picture[..., 3] if picture.shape[-1] == _RGBA_CHANNELS else None
    # LoadImage gives a picture without transparency a mask of 64×64 zeros.
    if mask is not None and bool(mask.any()):
        transparent = mask.detach().to("cpu", torch.float32).reshape(-1, *mask.shape[-2:])[0]
        if transparent.shape != picture.shape[:2]:
            raise InputError(
                f"The mask has {transparent.shape[1]}×{transparent.shape[0]} pixels and the picture "
                f"{picture.shape[1]}×{picture.shape[0]}: connect the mask of this picture, or none."
            )
        covered = 1.0 - transparent
    if covered is not None:
        opaque = covered.clamp(0.0, 1.0)[..., None]
        picture = picture[..., :3] * opaque + (1.0 - opaque)
    return to_frame(picture)


def check_images(images: Tensor, name: str) -> None:
    """Raise `InputError` or `MediaError` unless there is a picture and its size can be used."""
    if images.ndim != 4 or not len(images):
        raise InputError(f"{name} must be a batch of pictures with at least one, not {tuple(images.shape)}.")
    check_shape(images.shape[2], images.shape[1], name)


def iter_video_frames(images: Tensor, fps: float) -> Iterator[VideoFrame]:
    """Yield the pictures of a batch as frames of a clip, each converted when it is asked for."""
    for index, picture in enumerate(images):
        yield VideoFrame(to_frame(picture), index / fps, index, 1 / fps)


class FrameCollector:
    """An IMAGE of a known number of frames that is filled one by one, so that no frame is held twice."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self.images = torch.empty((count, height, width, 3), dtype=torch.float32)
        self._filled = 0

    def add(self, frame: Image) -> None:
        """Write the next frame."""
        torch.div(torch.from_numpy(frame), 255.0, out=self.images[self._filled])
        self._filled += 1
