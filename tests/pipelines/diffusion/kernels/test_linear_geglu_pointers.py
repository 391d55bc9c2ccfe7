"""The gated product by pointers in Triton's interpreter, or on a GPU, against its formula in float64."""

from __future__ import annotations

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipelines.diffusion.kernels.test_operations import TOLERANCE, error, normal

pytest.importorskip("triton")

from personalive.pipelines.diffusion.kernels.linear_geglu_pointers import (
    LAUNCH_CONFIGS,
    is_supported,
    linear_geglu_pointers,
    shared_memory_nbytes,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LEAST_SHARED = 99 * 1024
"""Of a block on capability 8.6 and 8.9."""


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() or INTERPRETED), reason="needs a GPU or TRITON_INTERPRET=1"
)
@settings(max_examples=12 if INTERPRETED else 30, deadline=None)
@given(rows=st.integers(1, 150), width=st.integers(1, 2), outputs=st.integers(1, 12), batch=st.integers(1, 2))
def test_it_is_the_formula_at_any_size(rows: int, width: int, outputs: int, batch: int) -> None:
    tokens = normal(batch, rows, 64 * width).half()
    weight = (normal(16 * outputs, 64 * width, seed=1) / math.sqrt(64 * width)).half()
    bias = normal(16 * outputs, seed=2).half()
    assert is_supported(tokens, weight)
    ours = linear_geglu_pointers(tokens.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE))
    projected = tokens.double() @ weight.double().T + bias.double()
    value, gate = projected[..., 0::2], projected[..., 1::2]
    exact = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert ours.shape == exact.shape
    assert error(ours, exact) < TOLERANCE[torch.float16]


def test_what_does_not_divide_into_whole_tiles_is_refused() -> None:
    def possible(width: int, outputs: int, dtype: torch.dtype = torch.float16) -> bool:
        return is_supported(torch.empty(3, width, dtype=dtype), torch.empty(2 * outputs, width, dtype=dtype))

    assert possible(320, 1280)
    assert possible(64, 8, torch.bfloat16)
    assert not possible(40, 64)
    assert not possible(96, 64)
    assert not possible(64, 12)
    assert not possible(64, 64, torch.float32)


def test_every_launch_has_room_in_the_smallest_memory() -> None:
    for sizes, _, *stages in LAUNCH_CONFIGS:
        assert shared_memory_nbytes(sizes, *stages) <= LEAST_SHARED
        assert 64 % sizes["INPUTS"] == 0
