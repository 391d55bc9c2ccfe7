from __future__ import annotations

import numpy as np
import pytest
import torch

from personalive.pipelines.diffusion.sampling.scheduler import DDIMScheduler

LEVELS = pytest.mark.parametrize("levels", [2, 3, 4, 5, 6, 7, 8])


def alpha(timestep: int) -> float:
    """α̅ in float64, 1 past the lowest level."""
    betas = np.linspace(0.00085**0.5, 0.02**0.5, 1000) ** 2
    return float(np.prod(1 - betas[: timestep + 1]))


def test_the_levels_are_those_of_training() -> None:
    schedule = DDIMScheduler.build(4, 4)
    assert schedule.timesteps.tolist() == [0] * 4 + [333] * 4 + [666] * 4 + [999] * 4
    assert (schedule.window_frames, schedule.initial_frames) == (16, 12)


@LEVELS
def test_each_frame_has_ddims_factors_of_its_level_and_of_the_next(levels: int) -> None:
    schedule = DDIMScheduler.build(levels, 3)
    steps = schedule.timesteps.tolist()
    lower = [-1] * 3 + steps[:-3]
    for tensor, expected in (
        (schedule.sqrt_alpha_prod, [alpha(step) ** 0.5 for step in steps]),
        (schedule.sqrt_one_minus_alpha_prod, [(1 - alpha(step)) ** 0.5 for step in steps]),
        (schedule.sqrt_alpha_prod_prev, [alpha(step) ** 0.5 for step in lower]),
        (schedule.sqrt_one_minus_alpha_prod_prev, [(1 - alpha(step)) ** 0.5 for step in lower]),
    ):
        assert tensor.dtype == torch.float32
        assert tensor.flatten().tolist() == pytest.approx(expected, rel=2e-4, abs=1e-7)


@LEVELS
def test_a_frame_that_has_come_down_is_at_the_level_of_the_frames_before_it(levels: int) -> None:
    schedule = DDIMScheduler.build(levels, 2)
    assert torch.equal(schedule.sqrt_alpha_prod_prev[:, :, 2:], schedule.sqrt_alpha_prod[:, :, :-2])
    assert torch.equal(
        schedule.sqrt_one_minus_alpha_prod_prev[:, :, 2:], schedule.sqrt_one_minus_alpha_prod[:, :, :-2]
    )


@LEVELS
def test_with_the_true_noise_everything_fits_together(levels: int) -> None:
    schedule = DDIMScheduler.build(levels, 2)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, schedule.window_frames, 3, 3, generator=generator)
    noisy = schedule.add_noise(latents, noise)
    assert torch.allclose(schedule.pred_original_sample(noisy, noise), latents, atol=1e-4)
    down = schedule.step(latents, noise)
    assert torch.equal(down[:, :, :2], latents[:, :, :2])
    assert torch.allclose(down[:, :, 2:], schedule.add_noise(latents[:, :, 2:], noise[:, :, 2:]))
    chunks = schedule.add_noise(latents[:, :, -2:], noise[:, :, -2:], first_frame=schedule.initial_frames)
    assert torch.equal(chunks, noisy[:, :, -2:])


def test_a_step_down_is_ddims_formula_in_double_precision() -> None:
    schedule = DDIMScheduler.build(4, 1)
    generator = torch.Generator().manual_seed(1)
    noisy, predicted = torch.randn(2, 1, 4, 4, 2, 2, generator=generator)
    clean = schedule.pred_original_sample(noisy, predicted)
    down = schedule.step(clean, predicted)
    for index, (here, below) in enumerate([(0, -1), (333, 0), (666, 333), (999, 666)]):
        x, e = noisy[0, :, index].double(), predicted[0, :, index].double()
        estimate = (x - (1 - alpha(here)) ** 0.5 * e) / alpha(here) ** 0.5
        expected = alpha(below) ** 0.5 * estimate + (1 - alpha(below)) ** 0.5 * e
        assert torch.allclose(clean[0, :, index].double(), estimate, rtol=1e-4, atol=1e-4)
        assert torch.allclose(down[0, :, index].double(), expected, rtol=1e-4, atol=1e-4)
