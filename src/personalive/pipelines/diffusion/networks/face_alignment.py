"""A face-alignment network with patch attention between its stages, which maps a face crop to a feature vector."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import OperationsModule
from personalive.pipelines.diffusion.networks.hourglass import (
    FrozenBatchNorm2d,
    Hourglass,
    HourglassResidualBlock,
)
from personalive.pipelines.diffusion.networks.patch_attention import PatchAttention

OUTER_PATCH_SIZE, INNER_PATCH_SIZE = 4, 2
HALF, QUARTER, EIGHTH = 2, 4, 8


@dataclass(frozen=True, slots=True)
class FaceAlignmentParams:
    """Sizes of the face-alignment network; the defaults are those of the released weights.

    `image_size` is the side of a crop in pixels. `stem` channels at half that size are followed by
    `outer_width` there and `inner_width` at a quarter of it, where the hourglass halves the map
    `hourglass_depth` times more. Tokens of the patch attentions have `attention_width` channels.
    """

    image_size: int = 224
    stem: int = 64
    outer_width: int = 128
    inner_width: int = 256
    attention_width: int = 1024
    attention_heads: int = 8
    norm_groups: int = 32
    hourglass_depth: int = 4
    landmarks: int = 68
    features: int = 512

    def __post_init__(self) -> None:
        if min(astuple(self)) < 1:
            raise ValueError(f"every size must be positive, not {self}")
        if self.image_size % EIGHTH or self.image_size // QUARTER < 2**self.hourglass_depth:
            raise ValueError(
                f"an image size of {self.image_size} is no multiple of {EIGHTH} pixels, or too small for "
                f"an hourglass of depth {self.hourglass_depth}"
            )
        for width in (self.outer_width, self.inner_width):
            if width % 4 or width % self.norm_groups:
                raise ValueError(f"{width} channels do not divide by 4 and into {self.norm_groups} groups")
        if self.attention_width % OUTER_PATCH_SIZE**2 or self.attention_width % self.attention_heads:
            raise ValueError(
                f"an attention width of {self.attention_width} does not divide into "
                f"{OUTER_PATCH_SIZE**2} pixels and {self.attention_heads} heads"
            )

    @property
    def patches(self) -> int:
        """Patches along each axis of a map, equal in all attentions."""
        return self.image_size // EIGHTH


class FaceAlignmentNetwork(OperationsModule):
    """The network, up to the vector into which its single heat map is reshaped."""

    def __init__(self, params: FaceAlignmentParams) -> None:
        super().__init__()
        outer, inner = params.outer_width, params.inner_width
        self.conv1 = nn.Conv2d(3, params.stem, 7, stride=HALF, padding=3)
        self.bn1 = FrozenBatchNorm2d(params.stem)
        self.conv2 = HourglassResidualBlock(params.stem, outer)
        self.att_1 = _build_attention(outer, OUTER_PATCH_SIZE, params)
        self.conv3 = HourglassResidualBlock(outer, outer)
        self.conv4 = HourglassResidualBlock(outer, inner)
        self.att_2 = _build_attention(inner, INNER_PATCH_SIZE, params)
        self.m0 = Hourglass(inner, params.hourglass_depth)
        self.top_m_0 = HourglassResidualBlock(inner, inner)
        self.conv_last0 = nn.Conv2d(inner, inner, 1)
        self.bn_end0 = FrozenBatchNorm2d(inner)
        self.att_3 = _build_attention(inner, INNER_PATCH_SIZE, params)
        self.l0 = nn.Conv2d(inner, params.landmarks, 1)
        self.bn5 = FrozenBatchNorm2d(params.landmarks)
        self.conv6 = nn.Conv2d(params.landmarks, 1, 3, stride=2, padding=1)
        self.fc = nn.Linear(params.patches**2, params.features)

    def forward(self, crops: Tensor) -> Tensor:
        """Map crops (N, 3, image_size, image_size) in [-1, 1] to (N, features)."""
        rectified = self.operations.batch_norm_relu
        x = rectified(self.conv1(crops), self.bn1)
        x = self.att_1(self.conv2(x))
        x = self.conv4(self.conv3(F.max_pool2d(x, 2)))
        x = self.top_m_0(self.m0(self.att_2(x)))
        x = F.relu(self.att_3(self.bn_end0(self.conv_last0(x))))
        heat = self.conv6(rectified(self.l0(x), self.bn5))
        out: Tensor = self.fc(F.relu(heat.flatten(1)))
        return out


def _build_attention(channels: int, patch: int, params: FaceAlignmentParams) -> PatchAttention:
    return PatchAttention(
        channels,
        width=params.attention_width,
        heads=params.attention_heads,
        patch=patch,
        side=params.patches,
        groups=params.norm_groups,
    )
