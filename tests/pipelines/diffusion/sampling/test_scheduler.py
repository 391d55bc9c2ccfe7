from __future__ import annotations

import numpy as np
import pytest
import torch

from personalive.pipelines.diffusion.sampling.scheduler import Schedule

LEVELS = pytest.mark.parametrize("levels", [2, 3, 4, 5, 6, 7, 8])


def alpha(timestep: int) -> float:
    """α̅ in float64, 1 past the lowest level."""
    betas = np.linspace(0.00085**0.5, 0.02**0.5, 1000) ** 2
    return float(np.prod(1 - betas[: timestep + 1]))


def test_the_levels_are_those_of_training() -> None:
    schedule = Schedule.build(4, 4)
    assert schedule.timesteps.tolist() == [0] * 4 + [333] * 4 + [666] * 4 + [999] * 4
    assert (schedule.window, schedule.padding) == (16, 12)


@LEVELS
def test_each_frame_has_ddims_factors_of_its_level_and_of_the_next(levels: int) -> None:
    schedule = Schedule.build(levels, 3)
    steps = schedule.timesteps.tolist()
    lower = [-1] * 3 + steps[:-3]
    for tensor, expected in (
        (schedule.signal, [alpha(step) ** 0.5 for step in steps]),
        (schedule.noise, [(1 - alpha(step)) ** 0.5 for step in steps]),
        (schedule.next_signal, [alpha(step) ** 0.5 for step in lower]),
        (schedule.next_noise, [(1 - alpha(step)) ** 0.5 for step in lower]),
    ):
        assert tensor.dtype == torch.float32
        assert tensor.flatten().tolist() == pytest.approx(expected, rel=2e-4, abs=1e-7)


@LEVELS
def test_a_frame_that_has_come_down_is_at_the_level_of_the_frames_before_it(levels: int) -> None:
    schedule = Schedule.build(levels, 2)
    assert torch.equal(schedule.next_signal[:, :, 2:], schedule.signal[:, :, :-2])
    assert torch.equal(schedule.next_noise[:, :, 2:], schedule.noise[:, :, :-2])


@LEVELS
def test_with_the_true_noise_everything_fits_together(levels: int) -> None:
    schedule = Schedule.build(levels, 2)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, schedule.window, 3, 3, generator=generator)
    noisy = schedule.noised(latents, noise)
    assert torch.allclose(schedule.clean(noisy, noise), latents, atol=1e-4)
    down = schedule.descended(latents, noise)
    assert torch.equal(down[:, :, :2], latents[:, :, :2])
    assert torch.allclose(down[:, :, 2:], schedule.noised(latents[:, :, 2:], noise[:, :, 2:]))
    chunks = schedule.noised(latents[:, :, -2:], noise[:, :, -2:], first=schedule.padding)
    assert torch.equal(chunks, noisy[:, :, -2:])


def test_a_step_down_is_ddims_formula_in_double_precision() -> None:
    schedule = Schedule.build(4, 1)
    generator = torch.Generator().manual_seed(1)
    noisy, predicted = torch.randn(2, 1, 4, 4, 2, 2, generator=generator)
    clean = schedule.clean(noisy, predicted)
    down = schedule.descended(clean, predicted)
    for index, (here, below) in enumerate([(0, -1), (333, 0), (666, 333), (999, 666)]):
        x, e = noisy[0, :, index].double(), predicted[0, :, index].double()
        estimate = (x - (1 - alpha(here)) ** 0.5 * e) / alpha(here) ** 0.5
        expected = alpha(below) ** 0.5 * estimate + (1 - alpha(below)) ** 0.5 * e
        assert torch.allclose(clean[0, :, index].double(), estimate, rtol=1e-4, atol=1e-4)
        assert torch.allclose(down[0, :, index].double(), expected, rtol=1e-4, atol=1e-4)
