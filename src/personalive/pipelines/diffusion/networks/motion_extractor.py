"""The motion extractor: it maps a whole frame to the head's position, rotation, scale and keypoints in 3-D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.networks.convnext import STEM_STRIDE, ConvNeXt
from personalive.pipelines.diffusion.networks.layers import position_ids

DEGREES_PER_BIN = 3.0


class HeadMotion(NamedTuple):
    """The motion extractor's output for N frames, all float32.

    keypoints (N, K, 3): the head's keypoints in its own coordinates, before rotation, scale and translation;
    scale (N, 1); pitch, yaw and roll (N,) in degrees; translation (N, 3). The unit is half the frame's side.
    """

    keypoints: Tensor
    scale: Tensor
    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    translation: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> HeadMotion:
        """Return the motion with a function applied to every field."""
        return HeadMotion(*map(function, self))

    def select(self, frames: slice | Tensor | NDArray[np.intp]) -> HeadMotion:
        """Return the motion of some of the frames."""
        return self.map(lambda value: value[frames])


@dataclass(frozen=True, slots=True)
class MotionExtractorParams:
    """Sizes of the motion extractor; the defaults are those of the released weights (ConvNeXt V2 tiny).

    `depths` and `widths` are blocks and channels per stage, `keypoints` is the number of a head's points, `bins`
    the number of 3° steps of an angle, `image_size` the side of a frame in pixels.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    keypoints: int = 21
    bins: int = 66
    image_size: int = 256

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.widths):
            raise ValueError(f"each stage needs a depth and a width, not {self.depths} and {self.widths}")
        if min(*self.depths, *self.widths, self.keypoints, self.bins) < 1:
            raise ValueError(f"every size must be positive, not {self}")
        if self.image_size < self.stride or self.image_size % self.stride:
            raise ValueError(f"an image size of {self.image_size} is no multiple of {self.stride} pixels")

    @property
    def stride(self) -> int:
        """Pixels of a frame, along each axis, per pixel of the last stage."""
        return STEM_STRIDE << (len(self.widths) - 1)


class MotionDetector(ConvNeXt):
    """The backbone and, on its features, one linear head per quantity."""

    def __init__(self, params: MotionExtractorParams) -> None:
        super().__init__(params.depths, params.widths)
        width, coordinates = params.widths[-1], 3 * params.keypoints
        self.fc_kp = nn.Linear(width, coordinates)
        self.fc_scale = nn.Linear(width, 1)
        self.fc_pitch = nn.Linear(width, params.bins)
        self.fc_yaw = nn.Linear(width, params.bins)
        self.fc_roll = nn.Linear(width, params.bins)
        self.fc_t = nn.Linear(width, 3)
        # Part of the released file; its output is not used.
        self.fc_exp = nn.Linear(width, coordinates)


class MotionExtractor(nn.Module):
    """A `MotionDetector` and the decoding of its heads, in float32 for any dtype of the parameters."""

    idx_tensor: Tensor

    def __init__(self, params: MotionExtractorParams) -> None:
        super().__init__()
        self.params = params
        self.detector = MotionDetector(params)
        self.register_buffer("idx_tensor", position_ids(params.bins))

    def forward(self, frames: Tensor) -> HeadMotion:
        """Map frames (N, 3, 256, 256) in [0, 1], of the parameters' dtype, to their head motion, float32.

        Raises ValueError where frames are not `image_size` square.
        """
        size = self.params.image_size
        if frames.shape[-2:] != (size, size):
            raise ValueError(f"the motion extractor takes frames of {size}×{size}, not {tuple(frames.shape)}")
        features = self.detector.extract_features(frames)

        def head(name: str) -> Tensor:
            linear = cast("nn.Linear", getattr(self.detector, f"fc_{name}"))
            return F.linear(features, linear.weight.float(), linear.bias.float())

        return HeadMotion(
            keypoints=head("kp").unflatten(1, (self.params.keypoints, 3)),
            scale=head("scale"),
            pitch=self._bins_to_degrees(head("pitch")),
            yaw=self._bins_to_degrees(head("yaw")),
            roll=self._bins_to_degrees(head("roll")),
            translation=head("t"),
        )

    def _bins_to_degrees(self, logits: Tensor) -> Tensor:
        """Return the mean angle (N,) in degrees of bins (N, bins), 3° apart, the middle one straight ahead."""
        middle = (self.params.bins - 1) / 2
        expected = (logits.softmax(dim=1) * self.idx_tensor.float()).sum(dim=1)
        return DEGREES_PER_BIN * expected - DEGREES_PER_BIN * middle
