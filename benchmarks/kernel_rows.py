"""The operations of a step at 512×512 with the shapes they have there, for `benchmarks.kernels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.kernels.fp8 import (
    Float8Convolution,
    Float8GroupNorm,
    Float8LayerNorm,
)
from personalive.pipelines.diffusion.kernels.gpu_support import MIN_FLOAT8_CAPABILITY
from personalive.pipelines.diffusion.kernels.operations import (
    ConvLayer,
    Operations,
    TensorWithStats,
    set_operations,
)
from personalive.pipelines.diffusion.networks.layers import GEGLU, FeedForward
from personalive.pipelines.diffusion.networks.resnet import Upsample
from personalive.pipelines.diffusion.stages.quantization import Float8FeedForward

FRAMES, HEADS = 16, 8
LEVELS = ((320, 64), (640, 32), (1280, 16))
"""Channels and side of the UNet's levels that have attention."""
CONVOLUTIONS = (
    (FRAMES, 320, 320, 64), (FRAMES, 640, 640, 32), (FRAMES, 1280, 1280, 16), (FRAMES, 1920, 640, 32),
    (2, 512, 512, 128), (2, 512, 256, 256), (2, 256, 256, 256), (2, 256, 128, 512), (2, 128, 128, 512),
)  # fmt: skip
"""Of the UNet and the decoder: pictures, their channels, the result's, and the side."""
_GAIN = 8.0
DEVICE = torch.device("cuda")

Call = Callable[[], object]
Ways = Mapping[str, Operations]


@dataclass(frozen=True)
class Row:
    """An operation at a shape: the ways in which it can be computed, and the bytes that every one of them moves."""

    kind: str
    shape: str
    count: int
    ways: dict[str, Call]
    nbytes: int


def half(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.float16)


def each(ways: Ways, run: Callable[[Operations], object]) -> dict[str, Call]:
    """Return the same with each way's operations."""
    return {name: lambda one=one: run(one) for name, one in ways.items()}  # type: ignore[misc]


def rows(ways: Ways) -> Iterator[Row]:
    """Every operation at every shape; ways: pytorch, and where there are kernels, fused and chosen."""
    yield from group_norms(ways)
    yield from residuals(ways)
    yield from token_operations(ways)
    yield from joins(ways)
    yield from attentions(ways)
    yield from wide_attention(ways)
    yield from convolutions(ways)
    yield from feed_forwards(ways)
    yield from doublings()
    if "chosen" in ways:
        yield from sums(ways["chosen"])
        if torch.cuda.get_device_capability() >= MIN_FLOAT8_CAPABILITY:
            yield from eights(ways["chosen"])


def group_norms(ways: Ways) -> Iterator[Row]:
    shapes = [
        *((FRAMES, channels, side, 9) for channels, side in LEVELS),
        (FRAMES, 960, 64, 1), (FRAMES, 640, 64, 2), (FRAMES, 1920, 32, 1), (FRAMES, 2560, 16, 2),
        (4, 512, 64, 10), (4, 512, 128, 6), (4, 512, 256, 1), (4, 256, 256, 5), (4, 256, 512, 1), (4, 128, 512, 6),
    ]  # fmt: skip
    for count, channels, side, times in shapes:
        norm = nn.GroupNorm(32, channels).to(DEVICE, torch.float16).requires_grad_(False)
        x = TensorWithStats(half(count, channels, side, side).to(memory_format=torch.channels_last))
        calls = each(ways, lambda one, x=x, norm=norm: one.group_norm(x, norm, silu=True))  # type: ignore[misc]
        yield Row("group norm", f"{count}×{channels}×{side}×{side}", times, calls, 3 * x.tensor.nbytes)


def residuals(ways: Ways) -> Iterator[Row]:
    """Time the sum of a residual, an update and a convolution's bias, and the norm behind it."""
    for count, channels, side, times in ((FRAMES, 320, 64, 15), (FRAMES, 640, 32, 15), (4, 256, 512, 1)):
        x, update = (
            half(count, channels, side, side).to(memory_format=torch.channels_last) for _ in range(2)
        )
        norm = nn.GroupNorm(32, channels).to(DEVICE, torch.float16).requires_grad_(False)

        def call(
            one: Operations, x: Tensor = x, update: Tensor = update, norm: nn.GroupNorm = norm
        ) -> object:
            return one.group_norm(one.add_with_stats(x, update, norm.bias), norm)

        yield Row(
            "residual + group norm",
            f"{count}×{channels}×{side}×{side}",
            times,
            each(ways, call),
            5 * x.nbytes,
        )


def token_operations(ways: Ways) -> Iterator[Row]:
    for channels, side in LEVELS:
        shape = (FRAMES, side * side, channels)
        tokens, update, projected = half(*shape), half(*shape), half(*shape[:2], 8 * channels)
        norm = nn.LayerNorm(channels).to(DEVICE, torch.float16).requires_grad_(False)
        split = [half(1, FRAMES, side * side, channels) for _ in range(3)]
        named = "×".join(map(str, shape))
        yield Row(
            "layer norm + residual", named, 35,
            each(ways, lambda one, t=tokens, u=update, n=norm: one.layer_norm(t, n, u)),  # type: ignore[misc]
            4 * tokens.nbytes,
        )  # fmt: skip
        yield Row(
            "gated", "×".join(map(str, (*shape[:2], 8 * channels))), 15,
            each(ways, lambda one, p=projected: one.geglu(p)),  # type: ignore[misc]
            projected.nbytes * 3 // 2,
        )  # fmt: skip
        yield Row(
            "attention along time", named, 10,
            each(ways, lambda one, s=split: one.temporal_attention(*s, HEADS)),  # type: ignore[misc]
            4 * tokens.nbytes,
        )  # fmt: skip


def joins(ways: Ways) -> Iterator[Row]:
    """Time joining a frame's keys and the reference's behind them."""
    for channels, side in LEVELS:
        own, shared = half(FRAMES, side * side, channels), half(1, side * side, channels)
        yield Row(
            "join", f"{FRAMES}×{side * side}×{channels}", 10,
            each(ways, lambda one, own=own, shared=shared: one.concat_kv(own, shared)),  # type: ignore[misc]
            3 * own.nbytes,
        )  # fmt: skip


def attentions(ways: Ways) -> Iterator[Row]:
    """Spatial self-attention with no keyframe and with three, and attention to motion tokens."""
    for channels, side in LEVELS:
        own = side * side
        for keys, times in ((2 * own, 5), (5 * own, 5), (32, 10)):
            query = half(FRAMES, own, channels)
            key, value = (half(FRAMES, keys, channels) for _ in range(2))
            yield Row(
                "attention", f"{FRAMES}×{own}×{channels}, {keys} keys", times,
                each(ways, lambda one, q=query, k=key, v=value: one.attention(q, k, v, HEADS)),  # type: ignore[misc]
                2 * query.nbytes + 2 * key.nbytes,
            )  # fmt: skip


def wide_attention(ways: Ways) -> Iterator[Row]:
    """Time the autoencoder's attention over all pixels of two pictures' latents."""
    tokens = [half(2, 4096, 512) for _ in range(3)]
    calls = each(ways, lambda one: one.single_head_attention(*tokens))
    yield Row("attention in one head", "2×4096×512", 2, calls, 4 * tokens[0].nbytes)


def convolutions(ways: Ways) -> Iterator[Row]:
    """Time the tiny decoder's convolutions, and the norm behind the motion encoder's."""
    for side in (64, 256, 512):
        layer = nn.Conv2d(64, 64, 3, padding=1).to(DEVICE, torch.float16).requires_grad_(False)
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = half(4, 64, side, side).to(memory_format=torch.channels_last)
        yield Row(
            "rectified convolution", f"4×64×{side}×{side}", 3,
            each(ways, lambda one, x=x, layer=layer: one.conv_relu(x, layer, x)),  # type: ignore[misc]
            3 * x.nbytes,
        )  # fmt: skip
    for channels, side in ((64, 112), (256, 56)):
        norm = nn.BatchNorm2d(channels).eval().to(DEVICE, torch.float16).requires_grad_(False)
        x = half(4, channels, side, side).to(memory_format=torch.channels_last)
        yield Row(
            "rectified norm", f"4×{channels}×{side}×{side}", 10,
            each(ways, lambda one, x=x, norm=norm: one.batch_norm_relu(x, norm)),  # type: ignore[misc]
            2 * x.nbytes,
        )  # fmt: skip


def feed_forwards(ways: Ways) -> Iterator[Row]:
    """Time a feed-forward's first half, its linear laid out as each way's operations want it."""
    for channels, side in (*LEVELS, (1280, 8)):
        count = FRAMES * side * side
        plain = GEGLU(channels, 4 * channels).to(DEVICE, torch.float16).requires_grad_(False)
        x = half(1, count, channels)
        calls: dict[str, Call] = {}
        for name, one in ways.items():
            network = deepcopy(plain)
            set_operations(network, one)
            if one.prefers_interleaved(count, network.proj):
                network.interleave()
            calls[name] = lambda x=x, network=network: network(x)  # type: ignore[misc]
        yield Row("linear + gate", f"{count}×{channels}", 15, calls, 5 * x.nbytes)


def doublings() -> Iterator[Row]:
    """Twice the size: a copy and a convolution, and both in one."""
    for count, channels, side in ((4, 512, 64), (4, 512, 128), (4, 256, 256), (16, 1280, 16), (16, 640, 32)):
        apart, merged = (Upsample(channels).to(DEVICE, torch.float16).requires_grad_(False) for _ in range(2))
        merged.fuse_conv_transpose()
        calls: dict[str, Call] = {}
        x = half(count, channels, side, side).to(memory_format=torch.channels_last)
        for name, layer in (("apart", apart), ("merged", merged)):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            calls[name] = lambda layer=layer, x=x: layer(x)  # type: ignore[misc]
        yield Row("doubling", f"{count}×{channels}×{side}×{side}", 1, calls, 5 * x.nbytes)


def sums(chosen: Operations) -> Iterator[Row]:
    """Time a feed-forward that is added to the residual afterwards and while it is summed."""
    for channels, side in (*LEVELS, (1280, 8)):
        count = FRAMES * side * side
        plain = FeedForward(channels).to(DEVICE, torch.float16).requires_grad_(False)
        gate = cast("GEGLU", plain.net[0])
        calls: dict[str, Call] = {}
        x, total = half(1, count, channels), half(1, count, channels)
        set_operations(plain, chosen)
        if chosen.prefers_interleaved(count, gate.proj):
            gate.interleave()
        calls["added"] = lambda x=x, t=total, network=plain: t + network(x)  # type: ignore[misc]
        calls["accumulated"] = lambda x=x, t=total, network=plain: network.add_to(t, x)  # type: ignore[misc]
        yield Row("feed-forward + residual", f"{count}×{channels}", 15, calls, 3 * x.nbytes)


def eights(chosen: Operations) -> Iterator[Row]:
    """Time a norm and the layer behind it, in 16 and in 8 bits."""
    for channels, side in (*LEVELS, (1280, 8)):
        count = FRAMES * side * side
        norm = nn.LayerNorm(channels).to(DEVICE, torch.float16).requires_grad_(False)
        plain = FeedForward(channels).to(DEVICE, torch.float16).requires_grad_(False)
        set_operations(plain, chosen)
        gate = cast("GEGLU", plain.net[0])
        if chosen.prefers_interleaved(count, gate.proj):
            gate.interleave()
        codes = Float8LayerNorm(norm, _GAIN)
        eight = Float8FeedForward(plain, norm, _GAIN)
        set_operations(eight, chosen)
        x = half(1, count, channels)
        calls: dict[str, Call] = {}
        for name, before, network in (("float16", norm, plain), ("float8", codes, eight)):

            def fed(
                before: nn.LayerNorm = before,
                network: FeedForward | Float8FeedForward = network,
                x: Tensor = x,
            ) -> object:
                both = chosen.layer_norm(x, before, x, bias=network.residual_bias)
                return network.add_to(both.sum, both.normed)

            calls[name] = fed
        yield Row("norm + feed-forward + residual", f"{count}×{channels}", 15, calls, 5 * x.nbytes)
    for count, channels, outputs, side in CONVOLUTIONS:
        pictures = nn.GroupNorm(32, channels).to(DEVICE, torch.float16).requires_grad_(False)
        layer = nn.Conv2d(channels, outputs, 3, padding=1).to(DEVICE, torch.float16).requires_grad_(False)
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        picture = TensorWithStats(half(count, channels, side, side).to(memory_format=torch.channels_last))
        calls = {}
        for name, first, second in (
            ("float16", pictures, layer),
            ("float8", Float8GroupNorm(pictures, _GAIN), Float8Convolution(layer, _GAIN)),
        ):

            def convolved(
                first: nn.GroupNorm = first, second: ConvLayer = second, x: TensorWithStats = picture
            ) -> object:
                return chosen.conv(chosen.group_norm(x, first, silu=True), second)

            calls[name] = convolved
        shape = f"{count}×{channels}×{side}×{side} to {outputs}"
        yield Row("group norm + convolution", shape, 1, calls, 4 * picture.tensor.nbytes)
