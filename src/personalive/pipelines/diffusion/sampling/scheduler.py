"""The noise schedule: DDIM (Song et al., 2021, https://arxiv.org/abs/2010.02502) for frames at different levels.

A window holds one chunk of frames per noise level, least noisy first. One call of the denoising UNet takes
every frame down by one level. All arithmetic is float32, whatever the UNet computes in: latents are small, and
at the noisiest level an estimate of the clean latents multiplies errors by 66.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TRAINING_STEPS = 1000
_FIRST_BETA, _LAST_BETA = 0.00085, 0.02


@dataclass(frozen=True, slots=True)
class Schedule:
    """Levels of a window of `levels` chunks with `chunk_frames` frames each.

    `timesteps` int64 (F,) of the F = levels · chunk_frames frames; `signal` and `noise` are √α̅ and √(1 - α̅) at
    those timesteps, `next_signal` and `next_noise` one level further down, all float32 (1, 1, F, 1, 1). Past
    the lowest level nothing is left of the noise.
    """

    levels: int
    chunk_frames: int
    timesteps: Tensor
    signal: Tensor
    noise: Tensor
    next_signal: Tensor
    next_noise: Tensor

    @classmethod
    def build(cls, levels: int, chunk_frames: int, device: torch.device | str = "cpu") -> Schedule:
        """The schedule on a device. Levels are spread evenly over the training steps, 2 at least."""
        each = torch.linspace(0, TRAINING_STEPS - 1, levels, dtype=torch.float64).round().long()
        lower = torch.cat([torch.tensor([-1]), each[:-1]])
        timesteps, further = (steps.repeat_interleave(chunk_frames) for steps in (each, lower))
        alphas = _alphas()
        here, below = (alphas[steps + 1].view(1, 1, -1, 1, 1) for steps in (timesteps, further))
        parts = (timesteps, here.sqrt(), (1 - here).sqrt(), below.sqrt(), (1 - below).sqrt())
        return cls(levels, chunk_frames, *(part.to(device) for part in parts))

    @property
    def window(self) -> int:
        """Frames of a window."""
        return self.levels * self.chunk_frames

    @property
    def padding(self) -> int:
        """Frames that a window holds before its newest chunk: those it starts with."""
        return self.window - self.chunk_frames

    def noised(self, latents: Tensor, noise: Tensor, first: int = 0) -> Tensor:
        """Clean latents (S, C, N, h, w) brought to the levels of the window's N frames from `first` on."""
        frames = slice(first, first + latents.shape[2])
        return self.signal[:, :, frames] * latents + self.noise[:, :, frames] * noise

    def clean(self, latents: Tensor, predicted: Tensor) -> Tensor:
        """The estimate of the clean latents of a window (S, C, F, h, w), given the predicted noise."""
        return (latents - self.noise * predicted) / self.signal

    def descended(self, clean: Tensor, predicted: Tensor) -> Tensor:
        """A window's latents one level further down, given their clean estimate and the predicted noise."""
        return self.next_signal * clean + self.next_noise * predicted


def _alphas() -> Tensor:
    """α̅ float32 (1001,): index t + 1 for timestep t, index 0 for a step past the lowest level, 1."""
    betas = torch.linspace(_FIRST_BETA**0.5, _LAST_BETA**0.5, TRAINING_STEPS, dtype=torch.float64) ** 2
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]).float()
