"""The pose image, which is the pose guider's input: a coloured disc for each drawn keypoint."""

from __future__ import annotations

import torch
from torch import Tensor

from personalive.pipelines.diffusion.preprocessing.keypoints import project_to_pixels

RADIUS = 4
COLOURS = (
    (255, 0, 0),
    (255, 255, 0),
    (0, 255, 0),
    (0, 255, 255),
    (0, 0, 255),
    (255, 0, 255),
    (255, 0, 85),
)
"""RGB of each drawn keypoint's disc, in the order of `keypoints.DRAWN_KEYPOINTS`."""


def draw_pose_image(points: Tensor, height: int, width: int) -> Tensor:
    """Draw pose images of keypoints (N, K, 3): float32 (N, 3, height, width) in [0, 1].

    Each drawn keypoint colours the pixels within 4 px of the one it lies in; where discs overlap, colours add
    up to at most 1. Of a disc across the border, the part inside is drawn; keypoints that are not finite are not.
    """
    discs = _disc_masks(project_to_pixels(points, height, width), height, width)
    canvas = torch.zeros(len(points), 3, height, width, dtype=torch.float32, device=points.device)
    for index, colour in enumerate(COLOURS):
        for channel, value in enumerate(colour):
            if value:
                canvas[:, channel].add_(discs[:, index], alpha=value / 255)
    return canvas.clamp_(max=1.0)


def _disc_masks(centres: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels lie within the radius of centres (N, P, 2): bool (N, P, height, width)."""
    across = torch.arange(width, device=centres.device) - centres[..., :1]
    down = torch.arange(height, device=centres.device) - centres[..., 1:]
    # dx² ≤ r² - dy² rather than dx² + dy² ≤ r², which would make another tensor as large as the result.
    return across.square()[:, :, None, :] <= (RADIUS**2 - down.square())[..., None]
