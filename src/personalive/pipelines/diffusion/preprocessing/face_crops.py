"""Face boxes from keypoints, and the crops of frames to them, all resized to one size.

Everything runs for N frames at once on the device of the inputs, and the host never waits for it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from personalive.pipelines.diffusion.preprocessing.keypoints import DRAWN_KEYPOINTS, project_to_pixels

MAX_COORDINATE = 1e6
"""The largest coordinate in pixels, to which keypoints beyond are moved, so that sums of them stay exact.

Such a face is out of frame.
"""


class FaceCrops(NamedTuple):
    """Crops float32 (N, 3, size, size), and `valid` (N,) bool: which are not empty; the others are zero."""

    crops: Tensor
    valid: Tensor


def compute_face_boxes(points: Tensor, height: int, width: int) -> Tensor:
    """Return boxes around the faces of keypoints (N, K, 3) in frames of height × width: int64 (N, 4).

    A box is x1 y1 x2 y2 in pixels, its second corner not included, within [0, width - 1] and [0, height - 1].
    Out of frame it is empty (x2 ≤ x1 or y2 ≤ y1); where a drawn keypoint is not finite, it is 0 0 0 0.

    With c the mean of the drawn pixels, a box reaches 0.95·r before c and 1.05·r behind it along both axes,
    where r = 1.7·(c_y - the topmost y), cut off to whole pixels. Each operation is rounded to float32 in this
    order, as when the networks were trained: a corner on a pixel's edge falls where it fell then.
    """
    pixels = project_to_pixels(points, height, width)
    valid = pixels.isfinite().all(dim=2).all(dim=1)
    pixels = torch.where(valid[:, None, None], pixels, 0.0).clamp(-MAX_COORDINATE, MAX_COORDINATE)
    # A sum and a division, since on a GPU `mean` multiplies by the rounded inverse.
    x, y = (pixels.sum(dim=1) / len(DRAWN_KEYPOINTS)).unbind(dim=1)
    reach = (y - pixels[..., 1].amin(dim=1)) * 1.7
    corners = [
        (x - reach * 0.95).clamp(0, width - 1),
        (y - reach * 0.95).clamp(0, height - 1),
        (x + reach * 1.05).clamp(0, width - 1),
        (y + reach * 1.05).clamp(0, height - 1),
    ]
    return torch.where(valid[:, None], torch.stack(corners, dim=1).long(), 0)


def crop_faces(frames: Tensor, boxes: Tensor, size: int = 224) -> FaceCrops:
    """Crop frames (N, 3, H, W) to boxes (N, 4), each resized to size × size.

    Resizing is bilinear with half-pixel centres, without antialiasing, and takes no pixels outside of the box. It
    equals `F.interpolate(frame[..., y1:y2, x1:x2], (size, size), mode="bilinear")` for each frame. Crops are
    float32, channels-last in memory. Boxes must lie within their frame; empty ones give zeros and are not valid.
    """
    left, top, right, bottom = boxes.unbind(dim=1)
    valid = (right > left) & (bottom > top)
    x0, x1, x_share = _bilinear_samples(left, right, size, frames.shape[3])
    y0, y1, y_share = _bilinear_samples(top, bottom, size, frames.shape[2])
    frame = torch.arange(len(frames), device=frames.device)[:, None, None]
    pixels = frames.movedim(1, -1)

    def row(y: Tensor) -> Tensor:
        before, after = (pixels[frame, y[:, :, None], x[:, None, :]].float() for x in (x0, x1))
        share = x_share[:, None, :, None]
        return (1 - share) * before + share * after

    share = y_share[:, :, None, None]
    crops = (1 - share) * row(y0) + share * row(y1)
    return FaceCrops(torch.where(valid[:, None, None, None], crops, 0.0).movedim(-1, 1), valid)


def _bilinear_samples(begin: Tensor, end: Tensor, size: int, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels on both sides of `size` samples of [begin, end) along an axis, and the second one's share.

    begin and end int64 (N,) → int64, int64 and float32, all (N, size).
    """
    length = (end - begin).clamp(min=1)[:, None]
    scale = length.float() / size
    index = torch.arange(size, device=begin.device) + 0.5
    # scale · index - 0.5 rounded once, as PyTorch's resampling does by a fused multiply-add: a share is the
    # difference of numbers hundreds of times larger, and would differ from PyTorch's in its fifth digit.
    # Halves of the scale's digits (Dekker's split) make both products exact.
    spread = scale * 4097
    coarse = spread - (spread - scale)
    place = (coarse * index - 0.5) + (scale - coarse) * index
    place = place.clamp(min=0.0)
    before = place.long()
    after = (before + 1).clamp(max=length - 1)
    # Otherwise a box beyond its frame would fail an assertion on a GPU and make the whole process unusable.
    inside = [(begin[:, None] + pixel).clamp(0, limit - 1) for pixel in (before, after)]
    return inside[0], inside[1], place - before
