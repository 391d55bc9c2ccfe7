"""All that a session draws at random, from one source of its own."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class NoiseSource(Protocol):
    """Draws a session's noise: once for the frames that its window starts with, then once for each chunk."""

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise, float32 on the CPU."""

    def state(self) -> Tensor:
        """uint8 (n,): all that `restore` needs to go on from here."""

    def restore(self, state: Tensor) -> None:
        """Go on as the source whose `state` this is."""


class SeededNoise:
    """Noise of PyTorch's generator on the CPU, so that a seed means the same on every device."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise, float32 on the CPU."""
        return torch.randn(shape, generator=self._generator)

    def state(self) -> Tensor:
        """uint8 (n,): all that `restore` needs to go on from here."""
        return self._generator.get_state()

    def restore(self, state: Tensor) -> None:
        """Go on as the source whose `state` this is."""
        self._generator.set_state(state)
