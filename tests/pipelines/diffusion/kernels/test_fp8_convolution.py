"""The convolutions of codes in Triton's interpreter, or on a GPU, against their formula in float64."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.fp8 import Float8Convolution, quantize_fp8
from tests.pipelines.diffusion.kernels.test_operations import TOLERANCE, error, normal

pytest.importorskip("triton")

from personalive.pipelines.diffusion.kernels import fp8_convolution, fp8_convolution_pointers
from personalive.pipelines.diffusion.kernels.gpu_support import SHARED_MEMORY_KB, is_kernel_supported
from personalive.pipelines.diffusion.kernels.triton_ops import TritonOperations

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CAPABILITY = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
runs = pytest.mark.skipif(
    not INTERPRETED and (not torch.cuda.is_available() or CAPABILITY < (8, 9)),
    reason="needs a GPU with 8-bit floats or TRITON_INTERPRET=1",
)


def layer_of(channels: int, outputs: int, gain: float = 8.0) -> Float8Convolution:
    layer = nn.Conv2d(channels, outputs, 3, padding=1).half().requires_grad_(False)
    layer.weight.copy_(normal(outputs, channels, 3, 3, seed=3) * 0.1)
    return Float8Convolution(layer, gain).to(DEVICE)


def exact(codes: Tensor, layer: Float8Convolution) -> Tensor:
    """Without the bias."""
    weight = layer.weight.double().cpu() * layer.factors.double().cpu()[:, None]
    return F.conv2d(codes.double().cpu(), weight.unflatten(0, (3, 3)).permute(2, 3, 0, 1), padding=1)


def forms(codes: Tensor, layer: Float8Convolution) -> dict[str, Any]:
    given = (codes, layer.weight, layer.factors, torch.float16)
    found: dict[str, Any] = {}
    if INTERPRETED or is_kernel_supported("_fp8_conv_kernel", CAPABILITY):
        found["descriptors"] = lambda: fp8_convolution.fp8_conv(*given, False)
        found["wide descriptors"] = lambda: fp8_convolution.fp8_conv(*given, True)
    if fp8_convolution_pointers.is_supported(codes, layer.weight):
        found["pointers"] = lambda: fp8_convolution_pointers.fp8_conv_pointers(*given)
    return found


@pytest.mark.gpu
@runs
@settings(max_examples=6 if INTERPRETED else 40, deadline=None)
@given(
    count=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 19)),
    channels=st.sampled_from([16, 48, 64, 128]),
    outputs=st.sampled_from([16, 48]),
    channels_last=st.booleans(),
)
def test_they_are_the_formula_at_any_size(
    count: int, sides: tuple[int, int], channels: int, outputs: int, channels_last: bool
) -> None:
    layer = layer_of(channels, outputs)
    codes = quantize_fp8(normal(count, channels, *sides), layer.gain).to(DEVICE)
    if channels_last:
        codes = codes.contiguous(memory_format=torch.channels_last)
    for form, made in forms(codes, layer).items():
        ours = made()
        assert ours.dtype == torch.float16, form
        assert ours.is_contiguous(memory_format=torch.channels_last), form
        assert error(ours, exact(codes, layer)) < TOLERANCE[torch.float16], form


@pytest.mark.gpu
@runs
def test_the_bias_is_left_to_whoever_comes_next() -> None:
    layer = layer_of(64, 16)
    codes = quantize_fp8(normal(1, 64, 4, 5), layer.gain).to(DEVICE)
    ours, left = TritonOperations().conv(codes, layer)
    assert left is not None
    assert left is layer.bias
    whole = layer(codes).float()
    torch.testing.assert_close(ours + left[:, None, None], whole, rtol=5e-3, atol=5e-3, check_dtype=False)


def test_which_numbers_of_channels_they_take() -> None:
    def possible(module: Any, channels: int, outputs: int, dtype: torch.dtype = torch.float8_e4m3fn) -> bool:
        weight = torch.empty(9, outputs, channels, dtype=torch.float8_e4m3fn)
        return bool(module.is_supported(torch.empty(1, channels, 2, 2, dtype=dtype), weight))

    assert possible(fp8_convolution, 48, 16)
    assert not possible(fp8_convolution, 40, 16)
    assert not possible(fp8_convolution, 48, 8)
    assert not possible(fp8_convolution, 48, 16, torch.float16)
    assert possible(fp8_convolution_pointers, 320, 16)
    assert not possible(fp8_convolution_pointers, 48, 16)


@pytest.mark.parametrize(("outputs", "wide"), [(128, False), (256, True), (320, False), (640, True)])
def test_tiles_are_wide_where_they_cover_little_beside_the_outputs(outputs: int, wide: bool) -> None:
    assert fp8_convolution.is_wide_supported(torch.empty(9, outputs, 16)) == wide


@pytest.mark.parametrize(
    ("sides", "tile"),
    [((64, 64), (1, 8, 16)), ((8, 8), (2, 8, 8)), ((1, 3), (32, 1, 4)), ((5, 40), (1, 8, 16))],
)
def test_a_tile_has_as_many_pixels_whatever_the_picture(
    sides: tuple[int, int], tile: tuple[int, int, int]
) -> None:
    assert fp8_convolution.tile_shape(128, *sides) == tile


def test_every_launch_has_room() -> None:
    for sizes, _, *stages in fp8_convolution_pointers.LAUNCHES:
        assert fp8_convolution_pointers.nbytes(sizes, *stages) <= SHARED_MEMORY_KB[8, 9] * 1024
        assert 64 % sizes["INPUTS"] == 0
    assert max(fp8_convolution._WIDE.nbytes, fp8_convolution._LARGE.nbytes) <= SHARED_MEMORY_KB[9, 0] * 1024
