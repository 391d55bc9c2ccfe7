"""The motion encoder: it maps face crops to motion tokens, the facial expression as the denoising UNet takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.networks.face_alignment import FaceAlignmentNetwork, FaceAlignmentParams
from personalive.pipelines.diffusion.networks.layers import position_ids, sincos_encoding


@dataclass(frozen=True, slots=True)
class MotionEncoderParams(FaceAlignmentParams):
    """Sizes of the motion encoder; the defaults are those of the released weights.

    A crop becomes `tokens` motion tokens of `token_width` channels each.
    """

    tokens: int = 32
    token_width: int = 16

    def __post_init__(self) -> None:
        # Not `super()`: a dataclass with slots is a new class, which the method's `super` does not refer to.
        FaceAlignmentParams.__post_init__(self)
        if self.token_width % 2:
            raise ValueError(f"a token width of {self.token_width} does not split into sines and cosines")


class MotionEncoder(nn.Module):
    """A face-alignment network, a linear to all tokens at once, and an encoding of each token's position."""

    pe: Tensor

    def __init__(self, params: MotionEncoderParams) -> None:
        super().__init__()
        self.params = params
        self.model = FaceAlignmentNetwork(params)
        self.final_proj = nn.Linear(params.features, params.tokens * params.token_width)
        code = sincos_encoding(position_ids(params.tokens), params.token_width // 2)
        self.register_buffer("pe", torch.cat(code, dim=1)[None])

    def forward(self, crops: Tensor) -> Tensor:
        """Map crops (N, 3, 224, 224) in [-1, 1], of the parameters' dtype, to tokens (N, 32, 16).

        Crops are independent of each other. Raises ValueError where they are not `image_size` square.
        """
        size = self.params.image_size
        if crops.shape[-2:] != (size, size):
            raise ValueError(f"the motion encoder takes crops of {size}×{size}, not {tuple(crops.shape)}")
        tokens = self.final_proj(self.model(crops))
        sizes = (self.params.tokens, self.params.token_width)
        return cast("Tensor", tokens.unflatten(1, sizes) + self.pe)
