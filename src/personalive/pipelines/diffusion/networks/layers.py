"""The layers that several networks share: attention, the gated feed-forward, sinusoidal encodings.

Tokens are (batch, tokens, width). Attribute names are those of the released checkpoints, so that a module's state
dict has the files' keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.fp8 import Float8Linear
from personalive.pipelines.diffusion.kernels.operations import OperationsModule


class Attention(OperationsModule):
    """The four projections of multi-head attention; the caller decides what is attended to.

    Queries have `width` channels, keys and values are projected from `context_width` (default: the same).
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        context_width = context_width or width
        if width % heads:
            raise ValueError(f"{width} channels do not divide into {heads} heads")
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self._qkv_weight: Tensor | None = None
        self._of_codes: Float8Linear | None = None

    def fuse_qkv(self) -> None:
        """Compute the projections of self-attention as one product; their weights become views of one tensor."""
        layers = [self.to_q, self.to_k, self.to_v]
        self._qkv_weight = torch.cat([layer.weight.detach() for layer in layers])
        for layer, part in zip(layers, self._qkv_weight.chunk(3), strict=True):
            layer.weight = nn.Parameter(part, requires_grad=False)

    @property
    def takes_codes(self) -> bool:
        """Whether the tokens of self-attention are given as 8-bit codes."""
        return self._of_codes is not None

    def together(self) -> Tensor:
        """Return the weights of all three projections of self-attention, (3 · width, width)."""
        if self._qkv_weight is not None:
            return self._qkv_weight
        return torch.cat([layer.weight.detach() for layer in (self.to_q, self.to_k, self.to_v)])

    def take_codes(self, product: Float8Linear, *, alone: bool) -> None:
        """Use `product`, whose weight is that of `together`, to project tokens that are 8-bit codes.

        `alone`: keys and values are projected of nothing else, so their layers are removed.
        """
        self._of_codes, self._qkv_weight = product, None
        del self.to_q
        if alone:
            del self.to_k, self.to_v
            return
        for layer in (self.to_k, self.to_v):
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)

    def project_qkv(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, T, inner) of tokens (B, T, width) that attend to each other."""
        if self._of_codes is not None:
            query, key, value = self._of_codes(tokens).chunk(3, dim=-1)
            return query, key, value
        if self._qkv_weight is None:
            return self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        query, key, value = F.linear(tokens, self._qkv_weight).chunk(3, dim=-1)
        return query, key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from queries (B, T, inner) to keys and values (B, S, inner), and project out: (B, T, width)."""
        out: Tensor = self.to_out[0](self.operations.attention(query, key, value, self.heads))
        return out

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from unprojected queries (B, T, width) to projected keys and values (B, S, inner)."""
        return self.attend(self.to_q(query), key, value)


class GEGLU(OperationsModule):
    """GEGLU: one linear to twice the width; its first half times the exact GELU of the second."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner_width)
        self._is_interleaved = False

    @property
    def is_interleaved(self) -> bool:
        """Whether the linear's outputs are interleaved: each value is followed by its gate."""
        return self._is_interleaved

    def interleave(self) -> None:
        """Interleave the linear's values and gates, as a fused kernel takes them. A second call does nothing."""
        if not self._is_interleaved:
            _permute_outputs(self.proj, (2, -1))
            self._is_interleaved = True

    def in_pairs(self) -> nn.Linear:
        """Return the linear with interleaved outputs, each value before its gate; a copy if it has others."""
        if self._is_interleaved:
            return self.proj
        linear = deepcopy(self.proj)
        _permute_outputs(linear, (2, -1))
        return linear

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (…, width) to (…, inner_width)."""
        if self._is_interleaved:
            return self.operations.linear_geglu(tokens, self.proj.weight, self.proj.bias)
        return self.operations.geglu(self.proj(tokens))


def _permute_outputs(linear: nn.Linear, grid: tuple[int, int]) -> None:
    """Permute the outputs: seen as a grid filled row by row, they are taken column by column."""
    for name, tensor in list(linear.named_parameters()):
        rows = tensor.detach().unflatten(0, grid).transpose(0, 1).flatten(0, 1)
        setattr(linear, name, nn.Parameter(rows, requires_grad=False))


class FeedForward(OperationsModule):
    """A feed-forward: GEGLU to four times the width, and a linear back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        # The released files number these 0 and 2, since there was a dropout between them.
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (…, width) to (…, width)."""
        for layer in self.net:
            tokens = layer(tokens)
        return tokens

    @property
    def residual_bias(self) -> Tensor | None:
        """The bias (width,) that the total given to `add_to` must include already; None if it must not."""
        return cast("nn.Linear", self.net[-1]).bias if self.operations.fuses_residual_matmul else None

    def add_to(self, total: Tensor, tokens: Tensor) -> Tensor:
        """Return total + `forward` of tokens, both (B, T, width). It may overwrite total; see `residual_bias`."""
        if not self.operations.fuses_residual_matmul:
            return total + cast("Tensor", self(tokens))
        return self.operations.add_matmul(total, self.net[0](tokens), cast("nn.Linear", self.net[-1]).weight)


def sincos_encoding(positions: Tensor, frequencies: int) -> tuple[Tensor, Tensor]:
    """Return sine and cosine of position · 10000^(-i/frequencies), i = 0 … frequencies-1; both (…, frequencies).

    They are computed in float32 on the positions' device.
    """
    exponent = torch.arange(frequencies, dtype=torch.float32, device=positions.device) / frequencies
    angles = positions.float()[..., None] * torch.pow(10000.0, -exponent)
    return angles.sin(), angles.cos()


def position_ids(count: int) -> Tensor:
    """Return 0 … count-1 as float32 on the CPU, on whichever device modules are being built.

    Position encodings are constants, not weights: a network built on the meta device has to hold real ones.
    """
    return torch.arange(count, dtype=torch.float32, device="cpu")


class AttentionStack(OperationsModule):
    """A transformer block of pre-normed attentions followed by a pre-normed feed-forward, with residuals."""

    def __init__(self, width: int, attentions: Sequence[Attention]) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(attentions)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in attentions)
        self.ff = FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(
        self,
        tokens: Tensor,
        attention: Callable[[int, Tensor], Tensor],
        position_code: Callable[[int], Tensor | None] = lambda _: None,
    ) -> Tensor:
        """Map tokens (B, T, width) to the same shape; `attention(i, normed)` runs the i-th attention.

        `position_code(i)` (F, width), F dividing B, is added to the normed tokens of the i-th attention: row f to
        every F-th entry from f on.
        """
        update: Tensor | None = None
        for index, norm in enumerate(self.norms):
            tokens, normed = self.operations.layer_norm(
                tokens, cast("nn.LayerNorm", norm), update, position_code=position_code(index)
            )
            update = attention(index, normed)
        tokens, normed = self.operations.layer_norm(tokens, self.ff_norm, update, bias=self.ff.residual_bias)
        return self.ff.add_to(tokens, normed)
