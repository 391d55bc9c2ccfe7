"""Attention over the patches of a feature map: patches → tokens, one transformer block, tokens → pixels."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.kernels.operations import OperationsModule, TensorWithStats
from personalive.pipelines.diffusion.networks.layers import (
    Attention,
    AttentionStack,
    position_ids,
    sincos_encoding,
)


class PatchEmbedding(nn.Module):
    """A map's patches as tokens, each with the fixed encoding of its column and row."""

    pos_embed: Tensor

    def __init__(self, channels: int, width: int, patch: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        # Not in the released files: a constant that follows the parameters' device and dtype.
        self.register_buffer("pos_embed", sincos_position_encoding_2d(side, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, side·patch, side·patch) to tokens (N, side², width), row by row."""
        out: Tensor = self.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        return out


class PatchAttention(OperationsModule):
    """GroupNorm, patches of `patch` × `patch` pixels, self-attention and feed-forward, plus the input.

    `width` is that of a patch's token, `side` the number of patches along each axis of the square map.
    """

    def __init__(self, channels: int, *, width: int, heads: int, patch: int, side: int, groups: int) -> None:
        super().__init__()
        self.patch = patch
        self.side = side
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.pos_embed = PatchEmbedding(channels, width, patch, side)
        self.transformer_blocks = nn.ModuleList([AttentionStack(width, [Attention(width, heads)])])
        self.proj_out = nn.Linear(width // patch**2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w), where h = w = side·patch, to the same shape."""
        stack = cast("AttentionStack", self.transformer_blocks[0])
        attention = cast("Attention", stack.attention_blocks[0])

        def attend_to_itself(_: int, normed: Tensor) -> Tensor:
            return attention.attend(*attention.project_qkv(normed))

        normed = self.operations.group_norm(TensorWithStats(x), self.norm)
        return x + self._tokens_to_pixels(stack(self.pos_embed(normed), attend_to_itself))

    def _tokens_to_pixels(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, side², width) to (N, channels, h, w).

        A token holds its patch's pixels one after the other, each of width / patch² channels.
        """
        patches = tokens.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (self.side, self.side))
        image: Tensor = self.proj_out(patches).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return image.movedim(-1, 1)


def sincos_position_encoding_2d(side: int, width: int) -> Tensor:
    """Return the encoding of each of side × side patches, float32 (1, side², width) on the CPU.

    The first half of the width encodes the column, the other the row, each as width/4 sines, then as many
    cosines, of g · 10000^(-i/(width/4)) for the integer position g.
    """
    place = torch.cat(sincos_encoding(position_ids(side), width // 4), dim=1)
    column, row = place.expand(side, -1, -1), place[:, None].expand(-1, side, -1)
    return torch.cat([column, row], dim=2).flatten(0, 1)[None]
