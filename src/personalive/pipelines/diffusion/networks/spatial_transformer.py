"""The spatial transformer: attention over the pixels of a frame, and over those of the reference.

Besides the frame's own tokens, self-attention sees the *banks* of the reference and of history keyframes: the
inputs of the same block's self-attention in the reference UNet. Banks do not change while a reference is in use, so
their keys and values are projected once (`project_bank`) and passed in.

Cross-attention has one key, the image embedding, so its softmax is 1 and its result is the same for every query:
`to_out(to_v(embedding))`, one vector per block and reference (`cross_constant`). The released files also hold the
weights of its query and norm, which are not used.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.fp8 import Float8Linear
from personalive.pipelines.diffusion.kernels.operations import OperationsModule, TensorWithStats
from personalive.pipelines.diffusion.networks.layers import Attention, FeedForward

_MAX_JOINED_ELEMENTS = 1 << 26
"""The most elements of keys that are concatenated at once, those of half the frames of 64×64 with three keyframes:
memory peaks there, and half of the frames fill a GPU as well."""


class KeyValue(NamedTuple):
    """Projected keys and values, both (batch, tokens, channels)."""

    key: Tensor
    value: Tensor


class SpatialTransformerBlock(OperationsModule):
    """Self-attention, the cross-attention constant and the feed-forward, each with a residual."""

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, normed: Tensor, cross: Tensor, shared: KeyValue | None) -> Tensor:
        """Map tokens and normed = norm1(tokens), both (S·F, L, C), to (S·F, L, C).

        cross (S, 1, C); shared keys and values (S, M, C), the same for the F frames of a session.
        """
        update: Tensor = self.attn1.to_out[0](self._attend(*self.attn1.project_qkv(normed), shared))
        tokens, normed = self.operations.layer_norm(
            tokens, self.norm3, update, shift=cross, bias=self.ff.residual_bias
        )
        return self.ff.add_to(tokens, normed)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, shared: KeyValue | None) -> Tensor:
        """Attend from frames (S·F, L, C) to themselves and to the shared keys and values of their session."""
        heads, join, attend = self.attn1.heads, self.operations.concat_kv, self.operations.attention
        if shared is None:
            return attend(query, key, value, heads)
        sessions = len(shared.key)
        frames, channels = len(query) // sessions, key.shape[2]
        most = max(_MAX_JOINED_ELEMENTS // ((key.shape[1] + shared.key.shape[1]) * channels), 1)
        if len(query) <= most:
            return attend(query, join(key, shared.key), join(value, shared.value), heads)
        by_session = [tokens.unflatten(0, (sessions, frames)) for tokens in (query, key, value)]
        parts = []
        for row in range(sessions):
            more_keys, more_values = shared.key[row : row + 1], shared.value[row : row + 1]
            for portion in _even_slices(frames, most):
                own, keys, values = (tokens[row, portion] for tokens in by_session)
                parts.append(attend(own, join(keys, more_keys), join(values, more_values), heads))
        return torch.cat(parts)


def _even_slices(count: int, max_size: int) -> list[slice]:
    """Split 0 … count into slices of at most `max_size`, as even as possible."""
    each = math.ceil(count / math.ceil(count / max_size))
    return [slice(begin, min(begin + each, count)) for begin in range(0, count, each)]


class SpatialTransformer(OperationsModule):
    """GroupNorm, an input projection, one `SpatialTransformerBlock`, an output projection, plus the input."""

    def __init__(self, channels: int, heads: int, context_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in: nn.Conv2d | Float8Linear = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([SpatialTransformerBlock(channels, heads, context_width)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    @property
    def block(self) -> SpatialTransformerBlock:
        """The only transformer block."""
        return cast("SpatialTransformerBlock", self.transformer_blocks[0])

    def project_in(self, x: TensorWithStats) -> Tensor:
        """Map an image (N, C, h, w) to the block's input (N, h·w, C)."""
        normed = self.operations.group_norm(x, self.norm)
        return pointwise(normed.flatten(2).transpose(1, 2), self.proj_in)

    def compute_bank(self, tokens: Tensor) -> Tensor:
        """Return the input of self-attention (N, L, C); for a reference this is its bank."""
        return self.operations.layer_norm(tokens, self.block.norm1).normed

    def forward(self, x: TensorWithStats, cross: Tensor, shared: KeyValue | None = None) -> TensorWithStats:
        """Map x (S·F, C, h, w) to the same shape; see `SpatialTransformerBlock.forward` for the rest."""
        tokens = self.project_in(x)
        return self.project_out(x.tensor, self.block(tokens, self.compute_bank(tokens), cross, shared))

    def project_out(self, x: Tensor, tokens: Tensor) -> TensorWithStats:
        """Project the block's output (N, h·w, C) to an image and add the transformer's input x (N, C, h, w)."""
        update = pointwise(tokens, self.proj_out).transpose(1, 2).unflatten(2, x.shape[2:])
        return self.operations.add_with_stats(x, update)

    def project_bank(self, bank: Tensor) -> KeyValue:
        """Project banks (S, M, C) to keys and values (S, M, C)."""
        return KeyValue(self.block.attn1.to_k(bank), self.block.attn1.to_v(bank))

    def cross_constant(self, image_embeds: Tensor) -> Tensor:
        """Return the result (S, 1, C) of cross-attention to the one token of image_embeds (S, 1, context_width)."""
        attention = self.block.attn2
        constant: Tensor = attention.to_out[0](attention.to_v(image_embeds))
        return constant


def pointwise(tokens: Tensor, convolution: nn.Conv2d | Float8Linear) -> Tensor:
    """Apply a 1×1 convolution to tokens (N, L, C): in channels-last memory no copy is made."""
    if isinstance(convolution, Float8Linear):
        return cast("Tensor", convolution(tokens))
    return F.linear(tokens, convolution.weight.flatten(1), convolution.bias)
