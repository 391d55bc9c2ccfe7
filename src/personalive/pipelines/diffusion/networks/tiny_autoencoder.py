"""The tiny autoencoder (TAESD, https://github.com/madebyollin/taesd), of which only the decoder is used.

Convolutions and nothing else: biases, ReLUs and residuals can be taken along on their way, which is a third of the
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.kernels.operations import OperationsModule
from personalive.pipelines.diffusion.networks.resnet import Upsample

_LATENT_BOUND = 3.0
"""Latents are drawn within ± this by a hyperbolic tangent."""


@dataclass(frozen=True, slots=True)
class TinyAutoencoderParams:
    """Sizes of the decoder; the defaults are those of TAESD for Stable Diffusion 1.x.

    `blocks` residual blocks at each size, from the latents' own upward, the size doubling between them. The latents
    of UNets are the decoder's times `scale`.
    """

    latent_channels: int = 4
    out_channels: int = 3
    width: int = 64
    blocks: tuple[int, ...] = (3, 3, 3, 1)
    scale: float = 1.0


class _Block(OperationsModule):
    """Three 3×3 convolutions with ReLU between them, the input added, and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, last = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.ModuleList([first, nn.Identity(), second, nn.Identity(), last])

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) → the same shape."""
        first, second, last = (cast("nn.Conv2d", self.conv[place]) for place in (0, 2, 4))
        convolve = self.operations.conv_relu
        return convolve(convolve(convolve(x, first), second), last, x)


class _Decoder(OperationsModule):
    """The decoder. Its layers are numbered as files number them, what has no weights among them."""

    def __init__(self, params: TinyAutoencoderParams) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_build_layers(params))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_channels, h, w) → pictures (N, 3, 8h, 8w), about [-1, 1]."""
        first, *between, last = self.layers
        bounded = _LATENT_BOUND * torch.tanh(latents / _LATENT_BOUND)
        x = self.operations.conv_relu(bounded, cast("nn.Conv2d", first))
        for layer in between:
            x = layer(x)
        picture: Tensor = last(x)
        return 2 * picture - 1


class TinyAutoencoder(nn.Module):
    """The autoencoder, without its encoder."""

    def __init__(self, params: TinyAutoencoderParams) -> None:
        super().__init__()
        self.params = params
        self.decoder = _Decoder(params)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_channels, h, w), scaled → pictures (N, 3, 8h, 8w), about [-1, 1].

        Of any floating type; computed and given in the type of the decoder's weights.
        """
        unscaled = (latents / self.params.scale).to(next(self.decoder.parameters()))
        picture: Tensor = self.decoder(unscaled)
        return picture


def _build_layers(params: TinyAutoencoderParams) -> Iterator[nn.Module]:
    yield nn.Conv2d(params.latent_channels, params.width, 3, padding=1)
    yield nn.Identity()  # the first convolution's ReLU
    for level, blocks in enumerate(params.blocks):
        if level:
            yield nn.Identity()  # the doubling, which is the next one's as well
            yield Upsample(params.width, bias=False)
        for _ in range(blocks):
            yield _Block(params.width)
    yield nn.Conv2d(params.width, params.out_channels, 3, padding=1)
