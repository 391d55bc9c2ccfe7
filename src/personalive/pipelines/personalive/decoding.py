"""From clean latents to frames: scaled, decoded in parts that bound the memory, brought to uint8 on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.networks.tiny_decoder import TinyDecoder
from personalive.pipelines.personalive.networks.vae_decoder import VaeDecoder

_PIXELS_AT_ONCE = {"full": 2 * 512 * 512, "tiny": 4 * 512 * 512}
"""Memory peaks while frames are decoded: more than this of them gain nothing, as fewer fill the device."""


class FrameDecoder(nn.Module):
    """The full or the tiny autoencoder's decoder, and what comes before and after it.

    Raises `InputError` where the tiny one is asked for and not there. `at_once`: frames that are decoded together;
    by default as many as fill a device.
    """

    def __init__(self, models: Models, kind: str, at_once: int | None = None) -> None:
        super().__init__()
        if kind == "tiny" and models.tiny_vae is None:
            raise InputError("The tiny autoencoder is not there. Get it with: personalive download --tiny")
        self._library: Any = models.tiny_vae if kind == "tiny" else models.vae
        self._dtype = models.dtype
        self._at_once, self._pixels = at_once, _PIXELS_AT_ONCE[kind]
        self.scale = float(self._library.config.scaling_factor)
        self.own: nn.Module | None = (
            VaeDecoder.of(models.vae) if kind == "full" else TinyDecoder.of(models.tiny_vae)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Clean latents float32 (N, 4, h, w) → pixels float32 (N, 3, 8h, 8w) in [0, 1]."""
        scaled = (latents / self.scale).to(self._dtype)
        pixels = 64 * latents.shape[2] * latents.shape[3]
        parts = scaled.split(self._at_once or max(self._pixels // pixels, 1))
        decoded = [self._decoded(part).float() for part in parts]
        return (torch.cat(decoded) / 2 + 0.5).clamp(0, 1)

    def _decoded(self, scaled: Tensor) -> Tensor:
        if self.own is not None:
            own: Tensor = self.own(scaled)
            return own
        picture: Tensor = self._library.decode(scaled).sample
        return picture


def to_images(pixels: Tensor) -> Tensor:
    """Pixels float (N, 3, H, W) in [0, 1] → uint8 RGB (N, H, W, 3), contiguous."""
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
