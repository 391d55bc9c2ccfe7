"""Residual blocks and the hourglass, the parts of face-alignment networks.

They follow Bulat and Tzimiropoulos, 2017 (https://arxiv.org/abs/1703.07332) and Newell et al., 2016
(https://arxiv.org/abs/1603.06937), for inference only.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import OperationsModule

SHORTCUT_EPS = 1e-4


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always uses its running statistics, so that a stray `train()` does not mix frames.

    Statistics may be float32 where the input and the other parameters are in half precision.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)
        # The number of training batches is of no use here, and not every file has it. The flag keeps PyTorch from
        # adding the count to state dicts that lack it; `forward` does not use it.
        self.num_batches_tracked = None
        self.track_running_stats = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        parameters = (self.running_mean, self.running_var, self.weight, self.bias)
        if len({parameter.dtype for parameter in parameters}) > 1:  # PyTorch needs one type for all
            parameters = tuple(parameter.float() for parameter in parameters)  # type: ignore[assignment]
        return F.batch_norm(x, *parameters, training=False, eps=self.eps)


class HourglassResidualBlock(OperationsModule):
    """Three 3×3 convolutions in sequence, whose outputs are concatenated, plus the input."""

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
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        rectified = self.operations.batch_norm_relu
        first = self.conv1(rectified(x, self.bn1))
        second = self.conv2(rectified(first, self.bn2))
        third = self.conv3(rectified(second, self.bn3))
        out: Tensor = torch.cat([first, second, third], dim=1) + self.downsample(x)
        return out


class Hourglass(nn.Module):
    """An hourglass: `depth` halvings and the way up again, where every level adds its branch from the way down.

    Levels count down, from `depth` at the picture's size to 1.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(depth, 0, -1):
            for part in ("b1", "b2", "b3"):
                self.add_module(f"{part}_{level}", HourglassResidualBlock(channels, channels))
        self.b2_plus_1 = HourglassResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape; h and w at least 2^depth, odd sizes in between are allowed."""
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
    """A shortcut that projects the input to another width; unlike in all other norms, its epsilon is 1e-4."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # The released files number these 0 and 2, since there was a ReLU between them.
        norm = FrozenBatchNorm2d(in_channels, eps=SHORTCUT_EPS)
        super().__init__(norm, nn.Identity(), nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self[2](self.operations.batch_norm_relu(x, cast("FrozenBatchNorm2d", self[0])))
        return out
