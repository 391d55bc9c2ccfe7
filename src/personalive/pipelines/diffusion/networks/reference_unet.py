"""The reference UNet: it maps one latent image to the banks that the denoising UNet attends to."""

from __future__ import annotations

import torch
from torch import Tensor

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats
from personalive.pipelines.diffusion.networks.unet import UNet


class ReferenceUNet(UNet):
    """A UNet that is run once per reference, and once per history keyframe, at timestep 0.

    Only the banks are needed, so the network ends at the last one.
    """

    def forward(self, latents: Tensor, cross: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Map latents (S, in_channels, h, w) to the bank (S, h'·w', C) of each spatial transformer.

        `cross` are this network's `compute_cross_constants` of the reference. Banks are in the order in which the
        transformers run: down, middle, up.
        """
        embedding = self.time_embedding(torch.zeros(1, device=latents.device))
        banks: list[Tensor] = []

        def run(number: int, x: TensorWithStats) -> TensorWithStats:
            layer = self.layers[number]
            x = layer.resnet(x, layer.resnet.project_time(embedding))
            if layer.attention is None:
                return x
            tokens = layer.attention.project_in(x)
            bank = layer.attention.compute_bank(tokens)
            banks.append(bank)
            if number == len(self.layers) - 1:
                return x
            return layer.attention.project_out(
                x.tensor, layer.attention.block(tokens, bank, cross[layer.bank], None)
            )

        self.run_layers(self.conv_in(latents), run)
        return tuple(banks)
