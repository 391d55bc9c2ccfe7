"""Every way of computing an operation, against its formula in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.kernels.fp8 import (
    FLOAT8,
    Float8GEGLU,
    Float8GroupNorm,
    Float8LayerNorm,
    quantize_fp8,
)
from personalive.pipelines.diffusion.kernels.operations import (
    PLAIN_OPERATIONS,
    OperationsModule,
    TensorWithStats,
    set_operations,
)
from personalive.pipelines.diffusion.networks.hourglass import FrozenBatchNorm2d
from tests.pipelines.diffusion.kernels.conftest import INTERPRETED

if TYPE_CHECKING:
    from tests.pipelines.diffusion.kernels.conftest import Way

TOLERANCE = {
    torch.float32: 3e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 1.5e-2 if INTERPRETED else 8e-3,
}
"""Relative error of a whole result: a few roundings. Triton's interpreter truncates bfloat16 where a GPU rounds."""
DTYPES = list(TOLERANCE)

Norm = TypeVar("Norm", nn.GroupNorm, nn.LayerNorm)


def error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double().cpu() - exact).norm() / exact.norm())


def normal(*shape: int, mean: float = 0.0, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return mean + torch.randn(shape, generator=random, dtype=torch.float64)


def filled(norm: Norm) -> Norm:
    """With other weights and biases than the rest."""
    norm.requires_grad_(False)
    norm.weight.copy_(1 + 0.1 * normal(len(norm.weight), seed=7))
    norm.bias.copy_(normal(len(norm.bias), seed=8))
    return norm


# Channels and sides of the UNets' and the decoder's norms, the sides cut down.
PICTURES = [(320, 16), (960, 8), (2560, 8), (128, 24), (512, 16), (32, 5), (64, 3)]
if INTERPRETED:  # where each tile takes milliseconds
    PICTURES = [(320, 5), (128, 18), (32, 5), (64, 3)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "side"), PICTURES)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shifted", [0, 1, 3])
def test_group_norm(way: Way, dtype: torch.dtype, channels: int, side: int, silu: bool, shifted: int) -> None:
    norm = filled(nn.GroupNorm(32, channels, eps=1e-6))
    x = normal(3, channels, side, side + 1).to(dtype)
    shift = normal(shifted, channels, seed=1).to(dtype) if shifted else None
    own = norm.to(way.device, dtype)
    given = None if shift is None else shift.to(way.device)
    ours = way.operations.group_norm(TensorWithStats(x.to(way.device)), own, silu=silu, shift=given)
    exact = x.double() if shift is None else x.double() + shift.double()[:, :, None, None]
    groups = exact.unflatten(1, (32, -1))
    mean = groups.mean(dim=(2, 3, 4), keepdim=True)
    variance = groups.var(dim=(2, 3, 4), keepdim=True, correction=0)
    exact = ((groups - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)
    weight, bias = own.weight.double().cpu(), own.bias.double().cpu()
    exact = exact * weight[:, None, None] + bias[:, None, None]
    exact = exact * exact.sigmoid() if silu else exact
    assert (ours.shape, ours.dtype) == (x.shape, dtype)
    assert error(ours, exact) < TOLERANCE[dtype]


def test_group_norm_keeps_a_small_variance_far_from_zero(way: Way) -> None:
    x = normal(2, 64, 40, 40, mean=1000.0).float()
    norm = filled(nn.GroupNorm(32, 64, eps=1e-6)).to(way.device)
    ours = way.operations.group_norm(TensorWithStats(x.to(way.device)), norm)
    groups = x.double().unflatten(1, (32, -1))
    deviation = groups.std(dim=(2, 3, 4), keepdim=True, correction=0)
    exact = ((groups - groups.mean(dim=(2, 3, 4), keepdim=True)) / deviation).flatten(1, 2)
    weight, bias = (value.double().cpu()[:, None, None] for value in (norm.weight, norm.bias))
    assert error(ours, exact * weight + bias) < 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "side"), PICTURES)
@pytest.mark.parametrize("added", [("update",), ("update", "bias"), ("bias",), ()])
def test_what_is_added_is_summed_for_the_norm_behind(
    way: Way, dtype: torch.dtype, channels: int, side: int, added: Sequence[str]
) -> None:
    x, update = (
        normal(2, channels, side, side + 1, mean=2.0, seed=seed).to(way.device, dtype) for seed in (0, 1)
    )
    bias = normal(channels, seed=2).to(way.device, dtype)
    ours = way.operations.add_with_stats(
        x, update if "update" in added else None, bias if "bias" in added else None
    )
    exact = x.double().cpu()
    exact = exact + update.double().cpu() if "update" in added else exact
    exact = exact + bias.double().cpu()[:, None, None] if "bias" in added else exact
    assert (ours.tensor.shape, ours.tensor.dtype) == (x.shape, dtype)
    assert error(ours.tensor, exact) < TOLERANCE[dtype]
    norm = filled(nn.GroupNorm(8, channels)).to(way.device, dtype)
    shift = normal(2, channels, seed=4).to(way.device, dtype)
    for given in (None, shift):
        known = way.operations.group_norm(ours, norm, silu=True, shift=given)
        counted = way.operations.group_norm(TensorWithStats(ours.tensor), norm, silu=True, shift=given)
        assert error(known, counted.double().cpu()) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1), nn.ConvTranspose2d(6, 8, 4, 2, 1)]
)
def test_convolutions_leave_their_bias_or_add_it(way: Way, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    layer = layer.requires_grad_(False).to(way.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = normal(2, 6, 5, 4).float().to(way.device, memory_format=torch.channels_last)
    out, bias = way.operations.conv(x, layer)
    whole = out if bias is None else out + bias[:, None, None]
    assert error(whole, layer.double().cpu()(x.double().cpu())) < 1e-3
    layer.float()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sessions", "length", "more", "channels"), [(1, 5, 5, 40), (2, 64, 192, 320), (3, 1, 7, 8)]
)
def test_joining_what_frames_share(
    way: Way, dtype: torch.dtype, sessions: int, length: int, more: int, channels: int
) -> None:
    together = normal(4 * sessions, length, 3 * channels).to(way.device, dtype)
    shared = normal(sessions, more, channels, seed=1).to(way.device, dtype)
    for own in (together[..., channels : 2 * channels], together[..., :channels].contiguous()):
        ours = way.operations.concat_kv(own, shared)
        assert ours.shape == (4 * sessions, length + more, channels)
        assert torch.equal(ours[:, :length], own)
        for frame in range(4 * sessions):
            assert torch.equal(ours[frame, length:], shared[frame // 4])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [320, 640, 1280, 64])
@pytest.mark.parametrize(
    "added",
    [
        (),
        ("update",),
        ("update", "shift"),
        ("shift",),
        ("update", "code"),
        ("bias",),
        ("update", "shift", "bias"),
    ],
)
def test_layer_norm(way: Way, dtype: torch.dtype, channels: int, added: Sequence[str]) -> None:
    norm = filled(nn.LayerNorm(channels, eps=1e-5)).to(way.device, dtype)
    tokens, update = normal(4, 9, channels).to(dtype), normal(4, 9, channels, seed=1).to(dtype)
    shift, code = normal(2, 1, channels, seed=2).to(dtype), normal(2, channels, seed=3).to(dtype)
    bias = normal(channels, seed=4).to(dtype)
    ours = way.operations.layer_norm(
        tokens.to(way.device),
        norm,
        update.to(way.device) if "update" in added else None,
        shift.to(way.device) if "shift" in added else None,
        code.to(way.device) if "code" in added else None,
        bias.to(way.device) if "bias" in added else None,
    )
    exact = tokens.double()
    exact = exact + update.double() if "update" in added else exact
    exact = exact + shift.double().repeat_interleave(2, dim=0) if "shift" in added else exact
    assert error(ours.sum, exact + bias.double() if "bias" in added else exact) < TOLERANCE[dtype]
    away = exact - exact.mean(dim=-1, keepdim=True)
    normed = away / (away.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    normed = normed * norm.weight.double().cpu() + norm.bias.double().cpu()
    normed = normed + code.double().repeat(2, 1)[:, None] if "code" in added else normed
    assert error(ours.normed, normed) < TOLERANCE[dtype]
    assert {ours.sum.dtype, ours.normed.dtype} == {dtype}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "width"), [((2, 33, 320), 1280), ((1, 5, 64), 24)])
def test_a_product_added_to_a_sum(way: Way, dtype: torch.dtype, shape: tuple[int, ...], width: int) -> None:
    total, values = normal(*shape).to(dtype), normal(*shape[:-1], width, seed=1).to(dtype)
    weight = (normal(shape[-1], width, seed=2) / math.sqrt(width)).to(dtype)
    exact = total.double() + values.double() @ weight.double().T
    added = [part.to(way.device) for part in (values, weight)]
    # Both may be written over.
    for given in (total.mT.contiguous().mT, total):
        ours = way.operations.add_matmul(given.to(way.device), *added)
        assert (ours.shape, ours.dtype) == (exact.shape, dtype)
        assert error(ours, exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "keys", "channels"), [(9, 40, 512), (64, 64, 320), (5, 7, 24)])
@pytest.mark.parametrize("offset", [0, 300])
def test_attention_in_one_wide_head(
    way: Way, dtype: torch.dtype, tokens: int, keys: int, channels: int, offset: int
) -> None:
    query = (3 * normal(2, tokens, channels)).to(dtype)
    key, value = normal(2, keys, channels, seed=1).to(dtype), normal(2, keys, channels, seed=2).to(dtype)
    value = value + offset  # with one, shares that do not sum to one show
    ours = way.operations.single_head_attention(*(part.to(way.device) for part in (query, key, value)))
    scores = query.double() @ key.double().mT / math.sqrt(channels)
    exact = scores.softmax(dim=-1) @ value.double()
    assert (ours.shape, ours.dtype) == (exact.shape, dtype)
    assert error(ours, exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 5, 2560), (3, 10240), (1, 7, 128)])
def test_gated(way: Way, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    projected = normal(*shape).to(dtype)
    ours = way.operations.geglu(projected.to(way.device))
    value, gate = projected.double().chunk(2, dim=-1)
    exact = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert ours.shape == exact.shape
    assert error(ours, exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "width", "outputs"), [(300, 320, 264), (5, 72, 128), (128, 64, 8), (40, 30, 24), (9, 64, 7)]
)
def test_gated_product(way: Way, dtype: torch.dtype, rows: int, width: int, outputs: int) -> None:
    way.require_products(dtype)
    tokens = normal(1, rows, width).to(dtype)
    weight = (normal(2 * outputs, width, seed=1) / math.sqrt(width)).to(dtype)
    bias = normal(2 * outputs, seed=2).to(dtype)
    ours = way.operations.linear_geglu(*(part.to(way.device) for part in (tokens, weight, bias)))
    projected = tokens.double() @ weight.double().T + bias.double()
    value, gate = projected[..., 0::2], projected[..., 1::2]
    exact = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert (ours.shape, ours.dtype) == (exact.shape, dtype)
    assert error(ours, exact) < TOLERANCE[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["triton"], indirect=True)
def test_gates_are_exact_far_from_zero(way: Way) -> None:
    gates = torch.linspace(-12, 12, 1024, dtype=torch.float64)
    bias = torch.stack([torch.ones(1024, dtype=torch.float64), gates], dim=1).flatten().half()
    nothing, weight = torch.zeros(1, 8).half(), torch.zeros(2048, 8).half()
    ours = way.operations.linear_geglu(*(part.to(way.device) for part in (nothing, weight, bias)))
    opened = bias[1::2].double()
    exact = opened * 0.5 * torch.special.erfc(-opened / math.sqrt(2))
    assert ((ours[0].double().cpu() - exact).abs() <= 2**-10 * exact.abs() + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("added", [False, True])
def test_rectified_convolution(way: Way, dtype: torch.dtype, added: bool) -> None:
    layer = nn.Conv2d(16, 24, 3, padding=1).requires_grad_(False).to(way.device, dtype)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, residual = normal(2, 16, 6, 5).to(dtype), normal(2, 24, 6, 5, seed=1).to(dtype)
    given = residual.to(way.device) if added else None
    ours = way.operations.conv_relu(x.to(way.device), layer, given)
    exact = layer.double().cpu()(x.double()) + (residual.double() if added else 0.0)
    assert (ours.shape, ours.dtype) == (residual.shape, dtype)
    assert error(ours, exact.relu()) < max(TOLERANCE[dtype], 1e-3)  # a GPU may multiply in TensorFloat-32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "side"), [(64, 9), (256, 7), (68, 5), (3, 2)])
def test_rectified_norm(way: Way, dtype: torch.dtype, channels: int, side: int) -> None:
    norm = nn.BatchNorm2d(channels, eps=1e-4).eval().requires_grad_(False)
    for place, tensor in enumerate((norm.weight, norm.bias, norm.running_mean)):
        assert tensor is not None
        tensor.copy_(1 + 0.3 * normal(channels, seed=place))
    assert norm.running_var is not None
    norm.running_var.copy_(normal(channels, seed=5).square() + 0.1)
    norm = norm.to(dtype)
    x = normal(3, channels, side, side + 1, mean=0.5).to(dtype)
    exact = deepcopy(norm).double()(x.double()).relu()
    ours = way.operations.batch_norm_relu(x.to(way.device), norm.to(way.device))
    assert (ours.shape, ours.dtype) == (x.shape, dtype)
    assert error(ours, exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rectified_norm_by_statistics_beyond_half_precision(way: Way, dtype: torch.dtype) -> None:
    norm = FrozenBatchNorm2d(64).requires_grad_(False).to(dtype)
    norm.running_var = 1e5 * (normal(64, seed=5).square() + 0.7)
    x = normal(3, 64, 5, 6).to(dtype) * 300
    exact = deepcopy(norm).double()(x.double()).relu()
    ours = way.operations.batch_norm_relu(x.to(way.device), norm.to(way.device))
    assert (ours.shape, ours.dtype) == (x.shape, dtype)
    assert error(ours, exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [40, 80, 160, 8])
@pytest.mark.parametrize(("sessions", "frames", "length"), [(1, 16, 5), (2, 4, 6), (1, 32, 3)])
@pytest.mark.parametrize("together", [False, True])
def test_attention_along_time(
    way: Way, dtype: torch.dtype, width: int, sessions: int, frames: int, length: int, together: bool
) -> None:
    way.require_products(dtype)
    heads, channels = 2, 2 * width
    whole = normal(sessions, frames, length, 3 * channels).to(dtype)
    parts = whole.to(way.device).split(channels, dim=-1)
    query, key, value = parts if together else [part.contiguous() for part in parts]
    ours = way.operations.temporal_attention(query, key, value, heads)
    q, k, v = (
        part.double().unflatten(-1, (heads, width)).permute(0, 2, 3, 1, 4)
        for part in whole.split(channels, dim=-1)
    )
    exact = (q @ k.mT / math.sqrt(width)).softmax(dim=-1) @ v
    assert error(ours, exact.permute(0, 3, 1, 2, 4).flatten(3)) < TOLERANCE[dtype]


def codes_near(codes: Tensor, exact: Tensor, computed: torch.dtype, *, interpreted: bool) -> None:
    """Codes are what is exact, computed in that type, rounded to three bits of mantissa and cut off at 448."""
    assert codes.dtype == FLOAT8
    ours, exact = codes.cpu().double(), exact.clamp(-448, 448)
    # Half a step is a sixteenth, and near zero half of 2^-9; what was rounded before may lie beyond.
    before = 4 * TOLERANCE[computed] * exact.square().mean().sqrt()
    most = exact.abs() / 15.5 + 2**-10 + before
    right = (ours - exact).abs() <= most
    if interpreted:  # rounding up to a power of two, it forgets to count the exponent up; and 2^-9 becomes 0
        right |= ((2 * ours - exact).abs() <= most) | (exact.abs() < 2**-8)
    assert right.all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gain", [8.0, 1024.0])
def test_norms_give_codes(way: Way, dtype: torch.dtype, gain: float) -> None:
    way.require_codes()
    x = normal(2, 64, 5, 3).to(dtype)
    pictures = Float8GroupNorm(filled(nn.GroupNorm(8, 64)).to(way.device, dtype), gain)
    codes = way.operations.group_norm(TensorWithStats(x.to(way.device)), pictures, silu=True)
    norm = filled(nn.GroupNorm(8, 64)).double()
    codes_near(codes, torch.nn.functional.silu(norm(x.double())) * gain, dtype, interpreted=way.interpreted)
    tokens = Float8LayerNorm(filled(nn.LayerNorm(64)).to(way.device, dtype), gain)
    given = x.flatten(2).mT.contiguous()
    both = way.operations.layer_norm(given.to(way.device), tokens, given.to(way.device))
    assert both.sum.dtype == dtype
    exact = filled(nn.LayerNorm(64)).double()((given + given).double()) * gain
    codes_near(both.normed, exact, dtype, interpreted=way.interpreted)


@pytest.mark.parametrize("rows", [1, 70])
def test_a_gated_product_of_codes(way: Way, rows: int) -> None:
    way.require_codes()
    weight, bias = normal(128, 64, seed=1) / 8, normal(128, seed=2)
    layer = Float8GEGLU(weight.half(), bias.half(), 8.0, 4.0).to(way.device)
    given = quantize_fp8(normal(2, rows, 64), 8.0)
    ours = way.operations.geglu_fp8(given.to(way.device), layer)
    exact_weight = layer.weight.double().cpu() * float(layer.factor)
    projected = given.double() @ exact_weight.T + bias.half().double()
    value, gate = projected[..., 0::2], projected[..., 1::2]
    exact = 4 * value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert ours.dtype == FLOAT8
    assert ours.shape == exact.shape
    assert error(ours, exact) < (0.08 if way.interpreted else 0.04)


class Recorded:
    """PyTorch's operations, counted."""

    def __init__(self) -> None:
        self.asked = 0

    def __getattr__(self, name: str) -> object:
        self.asked += 1
        return getattr(PLAIN_OPERATIONS, name)


def test_arranging_reaches_every_module_and_no_other_network() -> None:
    class Part(OperationsModule):
        pass

    network, other = nn.Sequential(Part(), nn.Sequential(Part())), Part()
    recorded: Any = Recorded()
    set_operations(network, recorded)
    found = [module for module in network.modules() if isinstance(module, OperationsModule)]
    assert len(found) == 2
    assert all(part.operations is recorded for part in found)
    assert other.operations is PLAIN_OPERATIONS
