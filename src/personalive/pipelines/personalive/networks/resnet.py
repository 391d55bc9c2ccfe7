"""The convolutional parts of a Stable Diffusion 1.x UNet: residual blocks and resampling.

Images are (frames, channels, height, width). All of it is agnostic of memory format: give it channels-last
tensors and weights and it stays channels-last.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.personalive.kernels.operations import Fusable


class ResnetBlock(Fusable):
    """GroupNorm-SiLU-conv twice, the time feature added between, plus the input.

    Without a `time_width` there is no time feature: an autoencoder's block.
    """

    def __init__(
        self, in_channels: int, out_channels: int, time_width: int | None, groups: int, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut: nn.Module = nn.Conv2d(in_channels, out_channels, 1)
        else:
            self.conv_shortcut = nn.Identity()

    def time_feature(self, embedding: Tensor) -> Tensor:
        """What this block adds for a time embedding (N, time_width) → (N, out_channels)."""
        feature: Tensor = self.time_emb_proj(F.silu(embedding))
        return feature

    def forward(self, x: Tensor, time_feature: Tensor | None = None) -> Tensor:
        """x (N, in_channels, h, w), time_feature (N or 1, out_channels) → (N, out_channels, h, w)."""
        hidden = self.conv1(self.operations.group_norm(x, self.norm1, silu=True))
        hidden = self.operations.group_norm(hidden, self.norm2, silu=True, shift=time_feature)
        out: Tensor = self.conv_shortcut(x) + self.conv2(hidden)
        return out


class Downsample(nn.Module):
    """Half the size: a 3×3 convolution with stride 2 and padding on all sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, h/2, w/2)."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Twice the size: nearest neighbour, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, 2h, 2w)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out
