"""No launch asks for more blocks than a grid has room for, at the largest sizes; needs no GPU and no memory."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

from triton.tools.tensor_descriptor import TensorDescriptor

from personalive.pipelines.diffusion.kernels import (
    batch_norm,
    fp8_convolution,
    fp8_convolution_pointers,
    group_norm,
    layer_norm,
    linear_geglu,
    linear_geglu_pointers,
    single_head_attention,
    token_ops,
)
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8
from tests.pipelines.diffusion.kernels.compiling import INLINED, kernel_names

MOST = (2**31 - 1, 65535, 65535)
"""Blocks along a CUDA grid's axes."""
LARGEST, SESSIONS, FRAMES, KEYFRAMES = 1024, 4, 32, 3


class Launches:
    """Stands in for a kernel: takes down the grid of each of its launches, and launches nothing."""

    def __init__(self, kernel: Any, grids: list[tuple[int, ...]]) -> None:
        self._tried = [config.kwargs for config in getattr(kernel, "launches", [])] or [{}]
        self._grids = grids

    def __getitem__(self, grid: tuple[int, ...] | Callable[[dict[str, int]], tuple[int, ...]]) -> Any:
        for sizes in self._tried:
            self._grids.append(grid(sizes) if callable(grid) else grid)
        return lambda *_, **__: None


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    found: list[tuple[int, ...]] = []
    for name, path in kernel_names().items():
        if name not in INLINED:
            module = importlib.import_module(path)
            monkeypatch.setattr(module, name, Launches(getattr(module, name), found))
    monkeypatch.setattr(TensorDescriptor, "from_tensor", lambda *_: None)
    monkeypatch.setattr(linear_geglu, "_device_config", lambda _: (linear_geglu._SMALL_TILES, 132))
    monkeypatch.setattr(fp8_convolution, "_tile_config", lambda *_: (fp8_convolution._SMALL, 132))
    yield found
    assert found
    for grid in found:
        assert all(0 < blocks <= most for blocks, most in zip(grid, MOST, strict=False)), grid


def empty(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


sides = st.sampled_from([64, 512, 768, LARGEST])
common = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@common
@given(side=sides, count=st.integers(1, 16), channels=st.sampled_from([32, 128, 256, 512]))
def test_pictures(grids: list[tuple[int, ...]], side: int, count: int, channels: int) -> None:
    x = empty(count, channels, side, side)
    weight = empty(channels)
    _, sums = group_norm.add_with_stats(x, x, weight)
    group_norm.group_norm(x, sums, weight, weight, 32, 1e-5, True, None, None)
    batch_norm.batch_norm_relu(x, weight, weight, weight, weight, 1e-5)
    codes, taps = empty(count, channels, side, side, dtype=FLOAT8), empty(9, channels, channels, dtype=FLOAT8)
    fp8_convolution.fp8_conv(codes, taps, weight, x.dtype, False)
    fp8_convolution_pointers.fp8_conv_pointers(codes, taps, weight, x.dtype)
    assert grids


@common
@given(
    side=sides,
    sessions=st.integers(1, SESSIONS),
    frames=st.integers(1, FRAMES),
    level=st.sampled_from([(320, 1), (640, 2), (1280, 4), (1280, 8)]),
)
def test_token_kernels(
    grids: list[tuple[int, ...]], side: int, sessions: int, frames: int, level: tuple[int, int]
) -> None:
    channels, half = level
    pixels = (side // 8 // half) ** 2 or 1
    own = empty(sessions * frames, pixels, channels)
    shared = empty(sessions, (1 + KEYFRAMES) * pixels, channels)
    weight, paired = empty(channels), empty(8 * channels, channels)
    token_ops.concat_kv(own, shared)
    layer_norm.layer_norm(own, weight, weight, 1e-5, own, shared[:, :1], None, weight, None)
    token_ops.geglu(empty(sessions * frames, pixels, 8 * channels))
    apart = own.unflatten(0, (sessions, frames))
    token_ops.temporal_attention(apart, apart, apart, 8)
    linear_geglu.linear_geglu(own, paired, empty(8 * channels))
    linear_geglu_pointers.linear_geglu_pointers(own, paired, empty(8 * channels))
    assert grids


def test_the_largest_picture_by_itself(grids: list[tuple[int, ...]]) -> None:
    single_head_attention.exp_scores(torch.empty(2, 16384, 8192, device="meta"), 1.0, torch.float16)
    x = empty(16, 128, LARGEST, LARGEST)
    group_norm.group_norm(x, None, empty(128), empty(128), 32, 1e-5, True, None, None)
    assert max(grid[0] for grid in grids) > MOST[1]
