from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.pipelines.diffusion.sampling.noise import SeededNoise

seeds = st.integers(0, 2**63 - 1)


@given(seeds)
@settings(max_examples=20)
def test_a_seed_means_the_same_noise_whatever_else_draws(seed: int) -> None:
    one, other = SeededNoise(seed), SeededNoise(seed)
    first = one.draw((2, 3))
    torch.rand(5)
    assert torch.equal(first, other.draw((2, 3)))
    assert not torch.equal(first, SeededNoise(seed ^ 1).draw((2, 3)))


@given(seeds, st.integers(0, 3))
@settings(max_examples=20)
def test_it_goes_on_from_a_state(seed: int, drawn: int) -> None:
    source, other = SeededNoise(seed), SeededNoise(0)
    for _ in range(drawn):
        source.draw((7,))
    other.restore(source.state())
    assert torch.equal(source.draw((4, 5)), other.draw((4, 5)))


def test_it_is_standard_normal_on_the_cpu() -> None:
    noise = SeededNoise(3).draw((100, 100))
    assert (noise.device.type, noise.dtype) == ("cpu", torch.float32)
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05
