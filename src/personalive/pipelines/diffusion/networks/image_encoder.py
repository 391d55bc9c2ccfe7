"""CLIP's vision transformer (Radford et al., 2021, https://arxiv.org/abs/2103.00020): a picture → one vector.

It is the one of Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929, with a norm in front: the picture is
cut into patches, a class token goes before theirs, and the final state of that token is projected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS

Activation = Literal["quick_gelu", "gelu"]
_QUICK_GELU_SCALE = 1.702


@dataclass(frozen=True, slots=True)
class ImageEncoderParams:
    """Sizes of the image encoder; the defaults are those of ViT-L/14, which the method uses.

    `activation` is the exact GELU, or x · sigmoid(1.702 x).
    """

    width: int = 1024
    inner_width: int = 4096
    layers: int = 24
    heads: int = 16
    in_channels: int = 3
    image_size: int = 224
    patch_size: int = 14
    out_width: int = 768
    activation: Activation = "quick_gelu"
    eps: float = 1e-5


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels do not divide into {heads} heads")
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        attended = PLAIN_OPERATIONS.attention(
            self.q_proj(tokens), self.k_proj(tokens), self.v_proj(tokens), self.heads
        )
        out: Tensor = self.out_proj(attended)
        return out


class _MLP(nn.Module):
    def __init__(self, width: int, inner_width: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner_width)
        self.fc2 = nn.Linear(inner_width, width)
        self._uses_quick_gelu = activation == "quick_gelu"

    def forward(self, tokens: Tensor) -> Tensor:
        inner = self.fc1(tokens)
        active = inner * torch.sigmoid(_QUICK_GELU_SCALE * inner) if self._uses_quick_gelu else F.gelu(inner)
        out: Tensor = self.fc2(active)
        return out


class _EncoderLayer(nn.Module):
    """Attention and a feed-forward, each after a norm and with a residual."""

    def __init__(self, params: ImageEncoderParams) -> None:
        super().__init__()
        self.self_attn = _SelfAttention(params.width, params.heads)
        self.layer_norm1 = nn.LayerNorm(params.width, params.eps)
        self.mlp = _MLP(params.width, params.inner_width, params.activation)
        self.layer_norm2 = nn.LayerNorm(params.width, params.eps)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.self_attn(self.layer_norm1(tokens))
        out: Tensor = tokens + self.mlp(self.layer_norm2(tokens))
        return out


class _Embeddings(nn.Module):
    position_ids: Tensor

    def __init__(self, params: ImageEncoderParams) -> None:
        super().__init__()
        size = params.patch_size
        places = (params.image_size // size) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.empty(params.width))
        self.patch_embedding = nn.Conv2d(params.in_channels, params.width, size, size, bias=False)
        # Uninitialised like the others: random numbers on the meta device would import PyTorch's compiler, which
        # takes seconds.
        self.position_embedding = nn.Embedding.from_pretrained(
            torch.empty(places, params.width), freeze=False
        )
        # Older files have it: 0, 1, … on the CPU like all constants, on whichever device the rest is built.
        self.register_buffer("position_ids", torch.arange(places, device="cpu")[None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(len(pixels), 1, -1)
        tokens: Tensor = torch.cat([whole, patches], dim=1) + self.position_embedding.weight
        return tokens


class _Encoder(nn.Module):
    def __init__(self, params: ImageEncoderParams) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(params) for _ in range(params.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class _VisionModel(nn.Module):
    def __init__(self, params: ImageEncoderParams) -> None:
        super().__init__()
        self.embeddings = _Embeddings(params)
        self.pre_layrnorm = nn.LayerNorm(params.width, params.eps)  # spelt as in the files
        self.encoder = _Encoder(params)
        self.post_layernorm = nn.LayerNorm(params.width, params.eps)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        out: Tensor = self.post_layernorm(tokens[:, 0])
        return out


class ImageEncoder(nn.Module):
    """The transformer and the projection."""

    def __init__(self, params: ImageEncoderParams) -> None:
        super().__init__()
        self.params = params
        self.vision_model = _VisionModel(params)
        self.visual_projection = nn.Linear(params.width, params.out_width, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalized pictures (N, 3, image_size, image_size) to one vector each, (N, out_width)."""
        out: Tensor = self.visual_projection(self.vision_model(pixels))
        return out
