"""Each fused operation and each attention kernel by itself, over the shapes of a step at 512×512, on a GPU.

    python -m benchmarks.kernels                       # every row
    python -m benchmarks.kernels --only attention      # which of PyTorch's kernels is fastest at which shape

Milliseconds of one call: ten calls recorded as a CUDA graph, the median of twenty replays, so launches cost nothing
and inputs larger than the cache come from memory. `bytes` is the least that has to be read and written, `floor` the
time of a copy of as many bytes, measured first. `count` is how often the shape occurs in a step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import sdpa_kernel

from personalive.pipelines.personalive.engine import _BACKENDS
from personalive.pipelines.personalive.kernels.choice import fastest
from personalive.pipelines.personalive.kernels.operations import PLAIN, Operations, Summed, arrange
from personalive.pipelines.personalive.networks.layers import FeedForward, GatedProjection
from personalive.pipelines.personalive.networks.resnet import Upsample
from personalive.pipelines.personalive.speed.quantization import Float8FeedForward

CALLS, REPLAYS = 10, 20
FRAMES, HEADS = 16, 8
LEVELS = ((320, 64), (640, 32), (1280, 16))
"""Channels and side of the UNet's levels that have attention."""
DEVICE = torch.device("cuda")


@dataclass(frozen=True)
class Row:
    """An operation at a shape: how it is computed in so many ways, and the bytes that none can avoid."""

    kind: str
    shape: str
    count: int
    ways: dict[str, Callable[[], object]]
    nbytes: int


def half(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.float16)


def measure(call: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    took = []
    for _ in range(REPLAYS):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        took.append(begun.elapsed_time(ended) / CALLS)
    return float(statistics.median(took))


def group_norms(ways: dict[str, Operations]) -> Iterator[Row]:
    shapes = [
        *((FRAMES, channels, side, 9) for channels, side in LEVELS),
        (FRAMES, 960, 64, 1), (FRAMES, 640, 64, 2), (FRAMES, 1920, 32, 1), (FRAMES, 2560, 16, 2),
        (4, 512, 64, 10), (4, 512, 128, 6), (4, 512, 256, 1), (4, 256, 256, 5), (4, 256, 512, 1), (4, 128, 512, 6),
    ]  # fmt: skip
    for count, channels, side, times in shapes:
        norm = nn.GroupNorm(32, channels).to(DEVICE, torch.float16).requires_grad_(False)
        x = Summed(half(count, channels, side, side).to(memory_format=torch.channels_last))
        calls: dict[str, Callable[[], object]] = {
            name: lambda one=one, x=x, norm=norm: one.group_norm(x, norm, silu=True)  # type: ignore[misc]
            for name, one in ways.items()
        }
        yield Row("group norm", f"{count}×{channels}×{side}×{side}", times, calls, 3 * x.picture.nbytes)


def token_operations(ways: dict[str, Operations]) -> Iterator[Row]:
    for channels, side in LEVELS:
        shape = (FRAMES, side * side, channels)
        tokens, update, projected = half(*shape), half(*shape), half(*shape[:2], 8 * channels)
        norm = nn.LayerNorm(channels).to(DEVICE, torch.float16).requires_grad_(False)
        split = [half(1, FRAMES, side * side, channels) for _ in range(3)]
        named = "×".join(map(str, shape))
        yield Row(
            "layer norm + residual", named, 35,
            {
                name: lambda one=one, t=tokens, u=update, n=norm: one.layer_norm(t, n, u)  # type: ignore[misc]
                for name, one in ways.items()
            },
            4 * tokens.nbytes,
        )  # fmt: skip
        yield Row(
            "gated", named.replace(str(channels), str(8 * channels)), 15,
            {name: lambda one=one, p=projected: one.gated(p) for name, one in ways.items()},  # type: ignore[misc]
            projected.nbytes * 3 // 2,
        )  # fmt: skip
        yield Row(
            "attention along time", named, 10,
            {
                name: lambda one=one, s=split: one.attend_along_time(*s, HEADS)  # type: ignore[misc]
                for name, one in ways.items()
            },
            4 * tokens.nbytes,
        )  # fmt: skip


def attentions() -> Iterator[Row]:
    """Spatial self-attention with no keyframe and with three, and attention to motion tokens."""
    for channels, side in LEVELS:
        own = side * side
        for keys, times in ((2 * own, 5), (5 * own, 5), (32, 10)):
            shape = (FRAMES, HEADS, own, channels // HEADS)
            query = half(FRAMES, own, channels).view(FRAMES, own, HEADS, -1).transpose(1, 2)
            key, value = (
                half(FRAMES, keys, channels).view(FRAMES, keys, HEADS, -1).transpose(1, 2) for _ in range(2)
            )
            yield Row(
                "attention", f"{'×'.join(map(str, shape))}, {keys} keys", times,
                {
                    name: _attend(backend, query, key, value)
                    for name, backend in _BACKENDS.items()
                    if name != "math"
                },
                2 * query.nbytes + 2 * key.nbytes,
            )  # fmt: skip


def _attend(backend: Any, query: Tensor, key: Tensor, value: Tensor) -> Callable[[], object]:
    def call() -> object:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(query, key, value)

    return call


def residuals(ways: dict[str, Operations]) -> Iterator[Row]:
    """What was computed added to what it was computed from with a convolution's bias, and the norm behind."""
    for count, channels, side, times in ((FRAMES, 320, 64, 15), (FRAMES, 640, 32, 15), (4, 256, 512, 1)):
        x, update = (
            half(count, channels, side, side).to(memory_format=torch.channels_last) for _ in range(2)
        )
        norm = nn.GroupNorm(32, channels).to(DEVICE, torch.float16).requires_grad_(False)

        def call(
            one: Operations, x: Tensor = x, update: Tensor = update, norm: nn.GroupNorm = norm
        ) -> object:
            return one.group_norm(one.add(x, update, norm.bias), norm)

        calls: dict[str, Callable[[], object]] = {
            name: lambda one=one, call=call: call(one)  # type: ignore[misc]
            for name, one in ways.items()
        }
        yield Row("residual + group norm", f"{count}×{channels}×{side}×{side}", times, calls, 5 * x.nbytes)


def doublings() -> Iterator[Row]:
    """Twice the size: a copy and a convolution, and both in one."""
    for count, channels, side in ((4, 512, 64), (4, 512, 128), (4, 256, 256), (16, 1280, 16), (16, 640, 32)):
        apart, merged = (Upsample(channels).to(DEVICE, torch.float16).requires_grad_(False) for _ in range(2))
        merged.merge()
        ways: dict[str, Callable[[], object]] = {}
        x = half(count, channels, side, side).to(memory_format=torch.channels_last)
        for name, layer in (("apart", apart), ("merged", merged)):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            ways[name] = lambda layer=layer, x=x: layer(x)  # type: ignore[misc]
        yield Row("doubling", f"{count}×{channels}×{side}×{side}", 1, ways, 5 * x.nbytes)


def feed_forwards(fused: Operations) -> Iterator[Row]:
    for channels, side in (*LEVELS, (1280, 8)):
        rows = FRAMES * side * side
        plain = FeedForward(channels).to(DEVICE, torch.float16).requires_grad_(False)
        eight, x = Float8FeedForward(plain), half(1, rows, channels)
        paired = deepcopy(plain)
        cast("GatedProjection", paired.net[0]).pair()
        ways: dict[str, Callable[[], object]] = {}
        for name, network in (("apart", plain), ("gate within", paired), ("float8", eight)):
            arrange(network, fused)
            ways[name] = lambda x=x, network=network: network(x)  # type: ignore[misc]
        yield Row("feed-forward", f"{rows}×{channels}", 15, ways, 2 * x.nbytes)
        total = half(1, rows, channels)
        yield Row(
            "feed-forward + residual", f"{rows}×{channels}", 15,
            {
                "added": lambda x=x, t=total, network=paired: fused.plus(t, network(x)),  # type: ignore[misc]
                "accumulated": lambda x=x, t=total, network=paired: network.onto(t, x),  # type: ignore[misc]
            },
            3 * x.nbytes,
        )  # fmt: skip


def wide_attention(ways: dict[str, Operations]) -> Iterator[Row]:
    """The autoencoder's, over all pixels of two pictures' latents."""
    tokens = [half(2, 4096, 512) for _ in range(3)]
    calls: dict[str, Callable[[], object]] = {
        name: lambda one=one: one.attend_wide(*tokens)  # type: ignore[misc]
        for name, one in ways.items()
    }
    yield Row("attention in one head", "2×4096×512", 2, calls, 4 * tokens[0].nbytes)


def copy_rate() -> float:
    """Bytes a millisecond, read and written, of a large copy."""
    source = half(1 << 28)
    target = torch.empty_like(source)
    return 2 * source.nbytes / measure(lambda: target.copy_(source))


@torch.inference_mode()
def main() -> int:
    kinds = (
        "group norm",
        "residual + group norm",
        "doubling",
        "layer norm + residual",
        "gated",
        "attention along time",
        "attention",
        "attention in one head",
        "feed-forward",
        "feed-forward + residual",
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=kinds, help="may be repeated")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("These are measured on a CUDA device alone.")
    fused = fastest(DEVICE)
    ways = {"pytorch": PLAIN} | ({} if fused is PLAIN else {"fused": fused})
    rate = copy_rate()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, float16, copies at {rate / 1e9:.2f} TB/s"
    )
    wanted = args.only or kinds
    every = (
        group_norms(ways),
        residuals(ways),
        doublings(),
        token_operations(ways),
        attentions(),
        wide_attention(ways),
        feed_forwards(fused),
    )
    for rows in every:
        for row in rows:
            if row.kind not in wanted:
                continue
            cells = []
            for name, call in row.ways.items():
                try:
                    cells.append(f"{name} {measure(call):.3f}")
                except RuntimeError as error:
                    torch.cuda.synchronize()
                    cells.append(f"{name} – ({str(error).splitlines()[0][:40]})")
            floor = row.nbytes / rate
            print(
                f"{row.kind:<24}{row.shape:<28}{row.count:>3}×  {'  '.join(cells)}  floor {floor:.3f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
