"""The convolutional parts of a Stable Diffusion 1.x UNet: residual blocks and resampling.

Images are (frames, channels, height, width). All parts are agnostic of memory format: with channels-last tensors
and weights, results are channels-last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import ConvLayer, OperationsModule, TensorWithStats


class ResnetBlock(OperationsModule):
    """GroupNorm, SiLU and convolution twice, with the time feature added in between, plus the input.

    Without a `time_width` there is no time feature, as in an autoencoder's block.
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
        """Project a time embedding (N, time_width) to this block's time feature (N, out_channels)."""
        feature: Tensor = self.time_emb_proj(F.silu(embedding))
        return feature

    def forward(self, x: TensorWithStats, time_feature: Tensor | None = None) -> TensorWithStats:
        """Map x (N, in_channels, h, w) and a time_feature (N or 1, out_channels) to (N, out_channels, h, w)."""
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
    """Downsampling by 2: a 3×3 convolution with stride 2 and padding on all sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, h/2, w/2)."""
        out: Tensor = self.conv(x)
        return out


class Upsample(OperationsModule):
    """Upsampling by 2: nearest neighbour, then a 3×3 convolution."""

    def __init__(self, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.conv: nn.Conv2d | nn.ConvTranspose2d = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, 2h, 2w)."""
        return self.forward_with_stats(x).tensor

    def forward_with_stats(self, x: Tensor) -> TensorWithStats:
        """Compute `forward`, and the group-norm statistics of the result for a block that begins with a norm."""
        if isinstance(self.conv, nn.Conv2d):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        enlarged, bias = self.operations.conv(x, self.conv)
        return (
            TensorWithStats(enlarged)
            if bias is None
            else self.operations.add_with_stats(enlarged, None, bias)
        )

    def fuse_conv_transpose(self) -> None:
        """Fuse upsampling and convolution to one transposed convolution: four products a pixel instead of nine.

        No enlarged picture is written. An enlarged pixel becomes 2×2 equal ones, so a 3×3 kernel covers two rows
        and two columns of differing pixels: the weights for equal pixels are added, in float32. A second call does
        nothing.
        """
        if isinstance(self.conv, nn.ConvTranspose2d):
            return
        weight, bias = self.conv.weight, self.conv.bias
        channels = self.conv.in_channels
        with torch.device("meta"):
            merged = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        pairs = F.pad(weight.detach().float(), (1, 1, 1, 1))
        # A transposed convolution flips its kernel: its row a is the sum of rows 2 - a and 3 - a of the 3×3 one.
        summed = sum(pairs[:, :, y : y + 4, x : x + 4] for y in (0, 1) for x in (0, 1))
        assert isinstance(summed, Tensor)
        merged.weight = nn.Parameter(summed.flip(2, 3).transpose(0, 1).to(weight), requires_grad=False)
        merged.bias = bias
        self.conv = merged


def _add_optional(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the sum of the tensors that are not None."""
    if one is None or other is None:
        return one if other is None else other
    return one + other
