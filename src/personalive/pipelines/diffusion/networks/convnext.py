"""ConvNeXt V2 (Woo et al., 2023, https://arxiv.org/abs/2301.00808), which maps a picture to a feature vector.

Inside, pictures are channels-last in memory: the first norm returns them so, and no later operation copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM_STRIDE = 4
EXPANSION = 4
EPS = 1e-6


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over axis 1, computed in float32 for any dtype of input and parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, …) to the same shape and dtype, channels-last in memory."""
        normed = F.layer_norm(
            x.movedim(1, -1).float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return normed.to(x.dtype).movedim(-1, 1)


class GRN(nn.Module):
    """Global response normalisation: it scales each channel by its share in the energy of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, h, w, C) to γ·(x·n) + β + x, n being a channel's norm over space relative to their mean.

        It is computed as β + x·(1 + γ·n): one pass over the picture instead of four.
        """
        # A sum of squares over a whole picture overflows float16 long before its root does.
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float32)
        share = energy / (energy.mean(dim=-1, keepdim=True) + EPS)
        return torch.addcmul(self.beta, x, (1 + self.gamma * share).to(x.dtype))


class ConvNeXtBlock(nn.Module):
    """A depthwise 7×7 convolution, a norm, and a pointwise network of four times the width, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, EXPANSION * channels)
        self.grn = GRN(EXPANSION * channels)
        self.pwconv2 = nn.Linear(EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        pixels = self.norm(self.dwconv(x)).movedim(1, -1)
        pixels = self.pwconv2(self.grn(F.gelu(self.pwconv1(pixels))))
        out: Tensor = x + pixels.movedim(-1, 1)
        return out


class ConvNeXt(nn.Module):
    """Stages of blocks, each at half the size of the one before; the stem quarters the picture's size."""

    def __init__(self, depths: Sequence[int], widths: Sequence[int], in_channels: int = 3) -> None:
        super().__init__()
        before = (in_channels, *widths[:-1])
        self.downsample_layers = nn.ModuleList(
            _stem(incoming, width) if index == 0 else _downsample(incoming, width)
            for index, (incoming, width) in enumerate(zip(before, widths, strict=True))
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = LayerNorm2d(widths[-1])

    def extract_features(self, frames: Tensor) -> Tensor:
        """Map frames (N, in_channels, H, W) to their averaged and normalised features, float32 (N, widths[-1])."""
        x = frames
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        out: Tensor = self.norm(x.mean(dim=(2, 3), dtype=torch.float32))
        return out


def _stem(in_channels: int, channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, channels, STEM_STRIDE, stride=STEM_STRIDE)
    return nn.Sequential(convolution, LayerNorm2d(channels))


def _downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(LayerNorm2d(in_channels), nn.Conv2d(in_channels, out_channels, 2, stride=2))
