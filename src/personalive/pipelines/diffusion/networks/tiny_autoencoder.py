"""The tiny autoencoder (TAESD, https://github.com/madebyollin/taesd), of which only the decoder is used.

It consists of convolutions only: biases, ReLUs and residuals can be fused with them, which are a third of the time.
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
"""Bound of the latents: a hyperbolic tangent limits them to ± this."""


@dataclass(frozen=True, slots=True)
class TinyAutoencoderParams:
    """Sizes of the decoder; the defaults are those of TAESD for Stable Diffusion 1.x.

    `blocks` are the numbers of residual blocks at each size, from the latents' size upward, the size doubling
    between them. The UNets' latents are the decoder's times `scale`.
    """

    latent_channels: int = 4
    out_channels: int = 3
    width: int = 64
    blocks: tuple[int, ...] = (3, 3, 3, 1)
    scale: float = 1.0


class _Block(OperationsModule):
    """Three 3×3 convolutions with ReLU in between, the input added, and a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, last = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.ModuleList([first, nn.Identity(), second, nn.Identity(), last])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to the same shape."""
        first, second, last = (cast("nn.Conv2d", self.conv[place]) for place in (0, 2, 4))
        convolve = self.operations.conv_relu
        return convolve(convolve(convolve(x, first), second), last, x)


class _Decoder(OperationsModule):
    """The decoder. Its layers are numbered as in the files, including those without weights."""

    def __init__(self, params: TinyAutoencoderParams) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_build_layers(params))

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (N, latent_channels, h, w) to pictures (N, 3, 8h, 8w), about [-1, 1]."""
        first, *between, last = self.layers
        bounded = _LATENT_BOUND * torch.tanh(latents / _LATENT_BOUND)
        x = self.operations.conv_relu(bounded, cast("nn.Conv2d", first))
        for layer in between:
            x = layer(x)
        picture: Tensor = last(x)
        return 2 * picture - 1


class TinyAutoencoder(nn.Module):
    """The autoencoder without its encoder."""

    def __init__(self, params: TinyAutoencoderParams) -> None:
        super().__init__()
        self.params = params
        self.decoder = _Decoder(params)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (N, latent_channels, h, w) to pictures (N, 3, 8h, 8w), about [-1, 1].

        The input may have any floating type; computation and result have that of the decoder's weights.
        """
        unscaled = (latents / self.params.scale).to(next(self.decoder.parameters()))
        picture: Tensor = self.decoder(unscaled)
        return picture


def _build_layers(params: TinyAutoencoderParams) -> Iterator[nn.Module]:
    yield nn.Conv2d(params.latent_channels, params.width, 3, padding=1)
    yield nn.Identity()  # the first convolution's ReLU
    for level, blocks in enumerate(params.blocks):
        if level:
            yield nn.Identity()  # the upsampling, which the next layer does as well
            yield Upsample(params.width, bias=False)
        for _ in range(blocks):
            yield _Block(params.width)
    yield nn.Conv2d(params.width, params.out_channels, 3, padding=1)
