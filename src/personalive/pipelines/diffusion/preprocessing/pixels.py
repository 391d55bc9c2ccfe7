"""Pictures as the networks take them: resized as for their training, then scaled.

A reference is resized by Pillow, antialiased and rounded to uint8, always from the original picture. Driving
frames are resized on the device, bilinear with half-pixel centres and without antialiasing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.nn import functional as F

from personalive.media import Image
from personalive.pipelines.diffusion.device.pinned_copy import to_device

# Mean and standard deviation of CLIP's training pictures, RGB in [0, 1].
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def preprocess_clip_image(image: Image, side: int = 224) -> Tensor:
    """Convert a picture uint8 (h, w, 3) to CLIP's input: float32 (1, 3, side, side), normalised.

    The short side is resized to `side` (bicubic), then the middle is cut out.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    size = (side * width // short, side * height // short)
    resized = np.asarray(Pillow.fromarray(image).resize(size, Pillow.Resampling.BICUBIC))
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    pixels = _to_tensor(resized[top : top + side, left : left + side]) / 255
    return (pixels - pixels.new_tensor(_CLIP_MEAN)[:, None, None]) / pixels.new_tensor(_CLIP_STD)[
        :, None, None
    ]


def preprocess_reference(image: Image, height: int, width: int) -> Tensor:
    """Convert a reference uint8 (h, w, 3) to float32 (1, 3, height, width) in [-1, 1], resized by Lanczos."""
    return _to_tensor(_resize_lanczos(image, height, width)) / 127.5 - 1


def make_reference_thumbnail(image: Image, side: int = 256) -> Tensor:
    """Convert a reference uint8 (h, w, 3) to the motion extractor's input, float32 (1, 3, side, side) in [0, 1]."""
    return _to_tensor(_resize_lanczos(image, side, side)) / 255


def frames_to_device(frames: Sequence[Image] | np.ndarray, device: torch.device | str) -> Tensor:
    """Copy driving frames uint8, N of (h, w, 3) all of one size, to the device as one tensor (N, h, w, 3)."""
    whole = frames if isinstance(frames, np.ndarray) else np.stack(list(frames))
    if not (whole.flags.c_contiguous and whole.flags.writeable):  # PyTorch takes no other arrays
        whole = whole.copy()
    return to_device(torch.from_numpy(whole), device)


def preprocess_driving(frames: Tensor) -> Tensor:
    """Convert driving frames uint8 (N, h, w, 3) to float32 (N, 3, h, w) in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def make_driving_thumbnails(pixels: Tensor, side: int = 256) -> Tensor:
    """Resize driving pixels (N, 3, h, w) in [-1, 1] to (N, 3, side, side) in [0, 1] for the motion extractor."""
    return resize_bilinear(pixels, side, side) / 2 + 0.5


def resize_bilinear(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, C, h, w) to (N, C, height, width): bilinear, half-pixel centres, no antialiasing."""
    return F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)


def _resize_lanczos(image: Image, height: int, width: int) -> Image:
    return np.asarray(Pillow.fromarray(image).resize((width, height), Pillow.Resampling.LANCZOS))


def _to_tensor(image: Image) -> Tensor:
    """Convert uint8 (h, w, 3) to float32 (1, 3, h, w) with unchanged values."""
    return torch.tensor(image).permute(2, 0, 1)[None].float()
