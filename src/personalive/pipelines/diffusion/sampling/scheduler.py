"""The noise schedule: DDIM (Song et al., 2021, https://arxiv.org/abs/2010.02502) for frames at different levels.

A window holds one chunk of frames per noise level, least noisy first. One call of the denoising UNet takes
every frame down by one level. All arithmetic is float32, also where the UNet computes in another type: latents are
small, and at the noisiest level an estimate of the clean latents multiplies errors by 66.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TRAIN_TIMESTEPS = 1000
_BETA_START, _BETA_END = 0.00085, 0.02


@dataclass(frozen=True, slots=True)
class DDIMScheduler:
    """The noise levels of a window of `levels` chunks with `chunk_frames` frames each.

    `timesteps` int64 (F,) of the F = levels · chunk_frames frames; `sqrt_alpha_prod` and
    `sqrt_one_minus_alpha_prod` are √α̅ and √(1 - α̅) at those timesteps; `sqrt_alpha_prod_prev` and
    `sqrt_one_minus_alpha_prod_prev` are the same one level further down, all float32 (1, 1, F, 1, 1). Below the
    lowest level no noise is left.
    """

    levels: int
    chunk_frames: int
    timesteps: Tensor
    sqrt_alpha_prod: Tensor
    sqrt_one_minus_alpha_prod: Tensor
    sqrt_alpha_prod_prev: Tensor
    sqrt_one_minus_alpha_prod_prev: Tensor

    @classmethod
    def build(cls, levels: int, chunk_frames: int, device: torch.device | str = "cpu") -> DDIMScheduler:
        """Build the schedule on a device. The levels, at least two, are spread evenly over the training steps."""
        each = torch.linspace(0, NUM_TRAIN_TIMESTEPS - 1, levels, dtype=torch.float64).round().long()
        lower = torch.cat([torch.tensor([-1]), each[:-1]])
        timesteps, further = (steps.repeat_interleave(chunk_frames) for steps in (each, lower))
        alphas = _compute_alphas_cumprod()
        here, below = (alphas[steps + 1].view(1, 1, -1, 1, 1) for steps in (timesteps, further))
        parts = (timesteps, here.sqrt(), (1 - here).sqrt(), below.sqrt(), (1 - below).sqrt())
        return cls(levels, chunk_frames, *(part.to(device) for part in parts))

    @property
    def window_frames(self) -> int:
        """The number of frames of a window."""
        return self.levels * self.chunk_frames

    @property
    def initial_frames(self) -> int:
        """The number of frames that a window holds before its newest chunk, which are those it starts with."""
        return self.window_frames - self.chunk_frames

    def add_noise(self, latents: Tensor, noise: Tensor, first_frame: int = 0) -> Tensor:
        """Add noise to clean latents (S, C, N, h, w), at the levels of the window's N frames from `first_frame`."""
        frames = slice(first_frame, first_frame + latents.shape[2])
        return (
            self.sqrt_alpha_prod[:, :, frames] * latents
            + self.sqrt_one_minus_alpha_prod[:, :, frames] * noise
        )

    def pred_original_sample(self, latents: Tensor, noise_pred: Tensor) -> Tensor:
        """Estimate the clean latents of a window (S, C, F, h, w) from the predicted noise."""
        return (latents - self.sqrt_one_minus_alpha_prod * noise_pred) / self.sqrt_alpha_prod

    def step(self, pred_original_sample: Tensor, noise_pred: Tensor) -> Tensor:
        """Return a window's latents one level further down, from their clean estimate and the predicted noise."""
        return (
            self.sqrt_alpha_prod_prev * pred_original_sample
            + self.sqrt_one_minus_alpha_prod_prev * noise_pred
        )


def _compute_alphas_cumprod() -> Tensor:
    """Return α̅, float32 (1001,): index t + 1 holds timestep t; index 0, below the lowest level, holds 1."""
    betas = torch.linspace(_BETA_START**0.5, _BETA_END**0.5, NUM_TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]).float()
