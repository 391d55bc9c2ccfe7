"""The pose guider: it maps an image of the keypoints to features added to the denoising UNet's first ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class PoseGuiderParams:
    """Sizes of the pose guider; the defaults are those of the released weights.

    `channels` are the widths from the pose image's size downward, the size halving between them; `out_channels`
    is the width of the denoising UNet's first features.
    """

    in_channels: int = 3
    channels: tuple[int, ...] = (16, 32, 96, 256)
    out_channels: int = 320

    def __post_init__(self) -> None:
        if not self.channels or min(self.in_channels, self.out_channels, *self.channels) < 1:
            raise ValueError(f"a pose guider needs at least one width, all of them positive, not {self}")

    @property
    def stride(self) -> int:
        """Pixels of the pose image, along each axis, per pixel of the output."""
        return 1 << (len(self.channels) - 1)


class PoseGuider(nn.Module):
    """3×3 convolutions with SiLU between them, every second one with stride 2."""

    def __init__(self, params: PoseGuiderParams) -> None:
        super().__init__()
        self.params = params
        self.conv_in = nn.Conv2d(params.in_channels, params.channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(params.channels):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out_modify = nn.Conv2d(params.channels[-1], params.out_channels, 3, padding=1)

    def forward(self, canvas: Tensor) -> Tensor:
        """Map pose images (B, 3, F, H, W) in [0, 1], of the parameters' dtype, to (B, out_channels, F, H/8, W/8).

        Frames are independent of each other. Raises ValueError where H or W is no multiple of the stride, 8.
        """
        batch, _, frames, height, width = canvas.shape
        if height % self.params.stride or width % self.params.stride:
            raise ValueError(
                f"a pose image of {width}×{height} pixels does not divide by {self.params.stride}: "
                "make both sides a multiple of it"
            )
        features = self.forward_frames(canvas.transpose(1, 2).flatten(0, 1))
        return cast("Tensor", features.unflatten(0, (batch, frames)).transpose(1, 2))

    def forward_frames(self, canvas: Tensor) -> Tensor:
        """Map the pose images (N, 3, H, W) of single frames to (N, out_channels, H/8, W/8)."""
        x = F.silu(self.conv_in(canvas))
        for convolution in self.blocks:
            x = F.silu(convolution(x))
        out: Tensor = self.conv_out_modify(x)
        return out
