"""The convolutional parts of a Stable Diffusion 1.x UNet: residual blocks and resampling.

Images are (frames, channels, height, width). All of it is agnostic of memory format: give it channels-last
tensors and weights and it stays channels-last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import ConvLayer, OperationsModule, TensorWithStats


class ResnetBlock(OperationsModule):
    """GroupNorm-SiLU-conv twice, the time feature added between, plus the input.

    Without a `time_width` there is no time feature: an autoencoder's block.
    """

    def __init__(
        self, in_channels: int, out_channels: int, time_width: int | None, groups: int, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1: ConvLayer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2: ConvLayer = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut: nn.Module = nn.Conv2d(in_channels, out_channels, 1)
        else:
            self.conv_shortcut = nn.Identity()

    def project_time(self, embedding: Tensor) -> Tensor:
        """What this block adds for a time embedding (N, time_width) → (N, out_channels)."""
        feature: Tensor = self.time_emb_proj(F.silu(embedding))
        return feature

    def forward(self, x: Tensor, time_feature: Tensor | None = None) -> Tensor:
        """x (N, in_channels, h, w), time_feature (N or 1, out_channels) → (N, out_channels, h, w)."""
        return self.forward_with_stats(TensorWithStats(x), time_feature).tensor

    def forward_with_stats(self, x: TensorWithStats, time_feature: Tensor | None = None) -> TensorWithStats:
        """The same, between blocks that take down each other's sums."""
        operations = self.operations
        hidden, bias = operations.conv(operations.group_norm(x, self.norm1, silu=True), self.conv1)
        shift = _add_optional(time_feature, None if bias is None else bias[None])
        hidden, bias = operations.conv(
            operations.group_norm(TensorWithStats(hidden), self.norm2, silu=True, shift=shift), self.conv2
        )
        kept, other = x.tensor, None
        if isinstance(self.conv_shortcut, nn.Conv2d):
            kept, other = operations.conv(kept, self.conv_shortcut)
        return operations.add_with_stats(kept, hidden, _add_optional(bias, other))


class Downsample(nn.Module):
    """Half the size: a 3×3 convolution with stride 2 and padding on all sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, h/2, w/2)."""
        out: Tensor = self.conv(x)
        return out


class Upsample(OperationsModule):
    """Twice the size: nearest neighbour, then a 3×3 convolution."""

    def __init__(self, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.conv: nn.Conv2d | nn.ConvTranspose2d = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, 2h, 2w)."""
        return self.forward_with_stats(x).tensor

    def forward_with_stats(self, x: Tensor) -> TensorWithStats:
        """The same, for a block that begins with a norm."""
        if isinstance(self.conv, nn.Conv2d):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        enlarged, bias = self.operations.conv(x, self.conv)
        return (
            TensorWithStats(enlarged)
            if bias is None
            else self.operations.add_with_stats(enlarged, None, bias)
        )

    def fuse_conv_transpose(self) -> None:
        """Make both one transposed convolution: four products a pixel instead of nine, and nothing in between.

        An enlarged pixel stands for 2×2 equal ones, of which a 3×3 kernel meets two rows and two columns of pixels
        that differ: the weights that meet the same one are added, in float32. Done once, it stays done.
        """
        if isinstance(self.conv, nn.ConvTranspose2d):
            return
        weight, bias = self.conv.weight, self.conv.bias
        channels = self.conv.in_channels
        with torch.device("meta"):
            merged = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        pairs = F.pad(weight.detach().float(), (1, 1, 1, 1))
        # Transposed, a kernel is flipped: its row a is the sum of rows 2 - a and 3 - a of the 3×3 one.
        summed = sum(pairs[:, :, y : y + 4, x : x + 4] for y in (0, 1) for x in (0, 1))
        assert isinstance(summed, Tensor)
        merged.weight = nn.Parameter(summed.flip(2, 3).transpose(0, 1).to(weight), requires_grad=False)
        merged.bias = bias
        self.conv = merged


def _add_optional(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The sum of those that are there."""
    if one is None or other is None:
        return one if other is None else other
    return one + other
