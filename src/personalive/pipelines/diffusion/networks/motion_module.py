"""The modules that the denoising UNet adds to Stable Diffusion's layers: the motion and the temporal module.

Both are two attentions and a feed-forward between an input and an output projection. In the motion module every
pixel of a frame attends to that frame's motion tokens; in the temporal module every pixel attends along time to
itself in the other frames.
"""

from __future__ import annotations

from collections.abc import Callable
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
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue

ATTENTION_LAYERS = 2

MotionKeyValues = tuple[KeyValue, KeyValue]
"""Projected motion tokens, one pair per attention of a motion module."""


class StackedTransformer(OperationsModule):
    """GroupNorm per frame, an input linear, an attention stack, an output linear, plus the input."""

    def __init__(self, channels: int, groups: int, attentions: list[Attention]) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([AttentionStack(channels, attentions)])
        self.proj_out = nn.Linear(channels, channels)

    def attention(self, index: int) -> Attention:
        """Return the attention at that index in the stack."""
        return cast("Attention", cast("AttentionStack", self.transformer_blocks[0]).attention_blocks[index])

    def forward(
        self,
        x: TensorWithStats,
        attention: Callable[[int, Tensor], Tensor],
        code: Callable[[int], Tensor | None] = lambda _: None,
    ) -> TensorWithStats:
        """Map x (N, C, h, w) to the same shape; see `AttentionStack.forward`, whose tokens are (N, h·w, C)."""
        normed = self.operations.group_norm(x, self.norm)
        tokens = self.proj_in(normed.flatten(2).transpose(1, 2))
        tokens = self.proj_out(self.transformer_blocks[0](tokens, attention, code))
        return self.operations.add_with_stats(
            x.tensor, tokens.transpose(1, 2).unflatten(2, x.tensor.shape[2:])
        )


class MotionModule(nn.Module):
    """Attention of each pixel of a frame to that frame's motion tokens."""

    def __init__(self, channels: int, heads: int, motion_width: int, groups: int) -> None:
        super().__init__()
        attentions = [Attention(channels, heads, motion_width) for _ in range(ATTENTION_LAYERS)]
        # The released files give both kinds of module this name.
        self.temporal_transformer = StackedTransformer(channels, groups, attentions)

    def projection_weights(self) -> tuple[Tensor, ...]:
        """Return the weights (C, motion_width) of key and value of the first attention, then of the second."""
        first, second = (self.temporal_transformer.attention(index) for index in range(ATTENTION_LAYERS))
        return first.to_k.weight, first.to_v.weight, second.to_k.weight, second.to_v.weight

    def forward(self, x: TensorWithStats, motion: MotionKeyValues) -> TensorWithStats:
        """Map x (N, C, h, w) and the projected motion tokens of the same N frames to (N, C, h, w)."""
        transformer = self.temporal_transformer

        def attention(index: int, normed: Tensor) -> Tensor:
            out: Tensor = transformer.attention(index)(normed, *motion[index])
            return out

        return cast("TensorWithStats", transformer(x, attention))


class TemporalPositionalEncoding(nn.Module):
    """The encoding of a frame's position p in the window: (sin, cos)(p · 10000^(-2i/C)), channels (2i, 2i + 1)."""

    pe: Tensor

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        pairs = sincos_encoding(position_ids(length), channels // 2)
        self.register_buffer("pe", torch.stack(pairs, dim=-1).flatten(1)[None])


class TemporalAttention(Attention):
    """Self-attention along time, with a position encoding on queries, keys and values."""

    def __init__(self, channels: int, heads: int, length: int) -> None:
        super().__init__(channels, heads)
        self.pos_encoder = TemporalPositionalEncoding(channels, length)

    def position_code(self, frames: int) -> Tensor:
        """Return the encoding (frames, C) to add to the tokens of each frame beforehand."""
        return self.pos_encoder.pe[0, :frames]

    def attend_over_time(self, tokens: Tensor, frames: int) -> Tensor:
        """Attend along time, each pixel to itself: encoded tokens (S·frames, L, C) → the same shape."""
        tokens = tokens.unflatten(0, (-1, frames))
        query, key, value = self.project_qkv(tokens)
        attended = self.operations.temporal_attention(query, key, value, self.heads)
        out: Tensor = self.to_out[0](attended.flatten(0, 1))
        return out


class TemporalModule(nn.Module):
    """Attention of each pixel to itself in the other frames of its session's window."""

    def __init__(self, channels: int, heads: int, length: int, groups: int) -> None:
        super().__init__()
        attentions: list[Attention] = [
            TemporalAttention(channels, heads, length) for _ in range(ATTENTION_LAYERS)
        ]
        self.temporal_transformer = StackedTransformer(channels, groups, attentions)

    def forward(self, x: TensorWithStats, frames: int) -> TensorWithStats:
        """Map x (S·frames, C, h, w), with the frames of a session together, to the same shape."""
        transformer = self.temporal_transformer

        def attention(index: int, normed: Tensor) -> Tensor:
            return cast("TemporalAttention", transformer.attention(index)).attend_over_time(normed, frames)

        def code(index: int) -> Tensor:
            return cast("TemporalAttention", transformer.attention(index)).position_code(frames)

        return cast("TensorWithStats", transformer(x, attention, code))
