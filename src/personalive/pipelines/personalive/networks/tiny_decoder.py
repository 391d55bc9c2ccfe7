"""The tiny autoencoder's decoder (TAESD, https://github.com/madebyollin/taesd): latents → a picture.

It computes what the library's `AutoencoderTiny.decode` does, with the library's weights. It is here because a third
of the time of decoding goes into biases, ReLUs and copies, which convolutions can do on their way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from personalive.pipelines.personalive.kernels.operations import Fusable
from personalive.pipelines.personalive.networks.resnet import Upsample

_BOUND = 3.0
"""Latents are drawn within ± this by a hyperbolic tangent."""


@dataclass(frozen=True, slots=True)
class TinyDecoderParams:
    """Sizes of the decoder; the defaults are those of TAESD for Stable Diffusion 1.x.

    `blocks` residual blocks at each size, from the latents' own upward, the size doubling between them.
    """

    latent_channels: int = 4
    out_channels: int = 3
    width: int = 64
    blocks: tuple[int, ...] = (3, 3, 3, 1)


class _Block(Fusable):
    """Three 3×3 convolutions with ReLU between them, the input added, and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) → the same shape."""
        first, second, last = (cast("nn.Conv2d", layer) for layer in self.convolutions)
        convolve = self.operations.rectified_convolution
        return convolve(convolve(convolve(x, first), second), last, x)


class TinyDecoder(Fusable):
    """The decoder."""

    def __init__(self, params: TinyDecoderParams) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(params.latent_channels, params.width, 3, padding=1)
        self.layers = nn.ModuleList(_layers(params))
        self.conv_out = nn.Conv2d(params.width, params.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_channels, h, w), already unscaled → pictures (N, 3, 8h, 8w), about [-1, 1]."""
        bounded = _BOUND * torch.tanh(latents / _BOUND)
        x = self.operations.rectified_convolution(bounded, self.conv_in)
        for layer in self.layers:
            x = layer(x)
        picture: Tensor = self.conv_out(x)
        return 2 * picture - 1

    @classmethod
    def of(cls, vae: Any) -> Self | None:
        """The decoder of a library's `AutoencoderTiny`, sharing its weights; None where it is of another kind."""
        config = vae.config
        widths = set(config.decoder_block_out_channels)
        kind = (config.act_fn, config.upsample_fn, config.upsampling_scaling_factor)
        if len(widths) > 1 or kind != ("relu", "nearest", 2):
            return None
        params = TinyDecoderParams(
            config.latent_channels, config.out_channels, widths.pop(), tuple(config.num_decoder_blocks)
        )
        with torch.device("meta"):
            own = cls(params)
        # The same entries in the same order; the library's names count its activations as well.
        theirs = vae.decoder.state_dict()
        own.load_state_dict(dict(zip(own.state_dict(), theirs.values(), strict=True)), assign=True)
        return own.requires_grad_(False).eval()


def _layers(params: TinyDecoderParams) -> Iterator[nn.Module]:
    for level, blocks in enumerate(params.blocks):
        if level:
            yield Upsample(params.width, bias=False)
        for _ in range(blocks):
            yield _Block(params.width)
