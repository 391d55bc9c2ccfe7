"""The source of a session's random numbers; each session has one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class NoiseSource(Protocol):
    """A source of a session's noise, drawn once for the window's initial frames and then once for each chunk."""

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal noise, float32 on the CPU."""

    def state(self) -> Tensor:
        """Return all that `restore` needs to continue from here, uint8 (n,)."""

    def restore(self, state: Tensor) -> None:
        """Continue as the source that returned this state."""


class SeededNoise:
    """Noise from PyTorch's generator on the CPU, so that a seed gives the same noise on every device."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal noise, float32 on the CPU."""
        return torch.randn(shape, generator=self._generator)

    def state(self) -> Tensor:
        """Return all that `restore` needs to continue from here, uint8 (n,)."""
        return self._generator.get_state()

    def restore(self, state: Tensor) -> None:
        """Continue as the source that returned this state."""
        self._generator.set_state(state)
