"""Decoding of clean latents to frames, in parts that bound the memory, and conversion to uint8 on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder
from personalive.pipelines.diffusion.networks.tiny_autoencoder import TinyAutoencoder

MAX_DECODED_PIXELS = {"full": 2 * 512 * 512, "tiny": 4 * 512 * 512}
"""The pixels that are decoded at once: they fill a device, and more would only raise the peak of its memory."""


class FrameDecoder(nn.Module):
    """The decoder of the full or the tiny autoencoder, with the steps before and after it.

    `frames_at_once`: the number of frames that are decoded together; by default as many as fill a device. Raises
    `InputError` where the tiny autoencoder is asked for and was not downloaded.
    """

    def __init__(self, components: Components, kind: str, frames_at_once: int | None = None) -> None:
        super().__init__()
        network = components.tiny_vae if kind == "tiny" else components.vae
        if network is None:
            raise InputError("The tiny autoencoder is not there. Get it with: personalive download --tiny")
        self.network: Autoencoder | TinyAutoencoder = network
        self._kind, self._frames_at_once = kind, frames_at_once

    def forward(self, latents: Tensor) -> Tensor:
        """Decode clean latents float32 (N, 4, h, w) to pixels float32 (N, 3, 8h, 8w) in [0, 1]."""
        pixels = 64 * latents.shape[2] * latents.shape[3]
        parts = latents.split(self._frames_at_once or frames_at_once(self._kind, pixels))
        decoded = [self.network.decode(part).float() for part in parts]
        return (torch.cat(decoded) / 2 + 0.5).clamp(0, 1)


def frames_at_once(kind: str, pixels: int) -> int:
    """Return how many frames of that number of pixels are decoded together, unless memory is short."""
    return max(MAX_DECODED_PIXELS[kind] // pixels, 1)


def to_images(pixels: Tensor) -> Tensor:
    """Convert pixels float (N, 3, H, W) in [0, 1] to uint8 RGB (N, H, W, 3), contiguous."""
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
