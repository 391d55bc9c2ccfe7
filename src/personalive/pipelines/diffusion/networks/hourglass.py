"""Residual blocks and the hourglass that face-alignment networks are made of.

After Bulat and Tzimiropoulos, 2017 (https://arxiv.org/abs/1703.07332) and Newell et al., 2016
(https://arxiv.org/abs/1603.06937), inference only.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import OperationsModule

SHORTCUT_EPS = 1e-4


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always uses its running statistics, so that no stray `train()` makes frames mix.

    Statistics may be float32 where the input and the other parameters are in half precision.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)
        # How many batches training saw is of no use here, and not every file says it. The flag keeps PyTorch
        # from putting the count into state dicts that lack it; `forward` does not ask it.
        self.num_batches_tracked = None
        self.track_running_stats = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → the same shape."""
        parameters = (self.running_mean, self.running_var, self.weight, self.bias)
        if len({parameter.dtype for parameter in parameters}) > 1:  # what PyTorch takes is one type for all
            parameters = tuple(parameter.float() for parameter in parameters)  # type: ignore[assignment]
        return F.batch_norm(x, *parameters, training=False, eps=self.eps)


class HourglassResidualBlock(OperationsModule):
    """Three 3×3 convolutions, each fed by the one before; what they give lies side by side, plus the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = FrozenBatchNorm2d(in_channels)
        self.conv1 = _conv3x3(in_channels, half)
        self.bn2 = FrozenBatchNorm2d(half)
        self.conv2 = _conv3x3(half, quarter)
        self.bn3 = FrozenBatchNorm2d(quarter)
        self.conv3 = _conv3x3(quarter, quarter)
        self.downsample = (
            nn.Identity() if in_channels == out_channels else _Shortcut(in_channels, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, h, w) → (N, after, h, w)."""
        rectified = self.operations.batch_norm_relu
        first = self.conv1(rectified(x, self.bn1))
        second = self.conv2(rectified(first, self.bn2))
        third = self.conv3(rectified(second, self.bn3))
        out: Tensor = torch.cat([first, second, third], dim=1) + self.downsample(x)
        return out


class Hourglass(nn.Module):
    """Down through `depth` halvings and up again, at every level joined by what branched off on the way down.

    Levels count down, from `depth` at the picture's own size to 1.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(depth, 0, -1):
            for part in ("b1", "b2", "b3"):
                self.add_module(f"{part}_{level}", HourglassResidualBlock(channels, channels))
        self.b2_plus_1 = HourglassResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) → the same shape; h and w at least 2^depth, odd sizes on the way are fine."""
        branches = []
        for level in range(self.depth, 0, -1):
            branches.append(self.get_submodule(f"b1_{level}")(x))
            x = self.get_submodule(f"b2_{level}")(F.max_pool2d(x, 2))
        x = self.b2_plus_1(x)
        for level in range(1, self.depth + 1):
            branch = branches.pop()
            x = self.get_submodule(f"b3_{level}")(x)
            x = branch + F.interpolate(x, size=branch.shape[2:], mode="bilinear", align_corners=False)
        return x


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


class _Shortcut(nn.Sequential, OperationsModule):
    """The input brought to another width; unlike every other norm, this one's epsilon is 1e-4."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # The released files number these 0 and 2: a ReLU stood between them.
        norm = FrozenBatchNorm2d(in_channels, eps=SHORTCUT_EPS)
        super().__init__(norm, nn.Identity(), nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, h, w) → (N, after, h, w)."""
        out: Tensor = self[2](self.operations.batch_norm_relu(x, cast("FrozenBatchNorm2d", self[0])))
        return out
