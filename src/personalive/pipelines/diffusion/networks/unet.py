"""The part that the reference UNet and the denoising UNet share: Stable Diffusion 1.x's UNet.

A UNet is a sequence of *layers*, numbered in the order they run: down, middle, up. A layer is a residual block,
with a spatial transformer after it on the levels that have one; the denoising UNet adds modules to the same layers.
`UNet.run_layers` connects the layers (skips and resampling); its caller says how each of them is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats
from personalive.pipelines.diffusion.networks.layers import sincos_encoding
from personalive.pipelines.diffusion.networks.resnet import Downsample, ResnetBlock, Upsample
from personalive.pipelines.diffusion.networks.spatial_transformer import SpatialTransformer

M = TypeVar("M", bound=nn.Module)
R = TypeVar("R")

_MODULE_LISTS = ("resnets", "attentions", "motion_modules", "temporal_modules")
"""The lists of a block that have a module for each layer, or for all but the last ones."""


@dataclass(frozen=True, slots=True)
class UNetParams:
    """Sizes of a UNet; the defaults are those of Stable Diffusion 1.x and the released weights.

    Every level but the lowest has spatial transformers.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    heads: int = 8
    cross_attention_width: int = 768
    norm_groups: int = 32

    def __post_init__(self) -> None:
        for channels in self.block_out_channels:
            if channels % self.norm_groups or channels % self.heads or channels % 2:
                raise ValueError(
                    f"{channels} channels do not divide into {self.norm_groups} groups and {self.heads} heads"
                )

    @property
    def levels(self) -> int:
        """Number of resolutions; latents halve between them."""
        return len(self.block_out_channels)

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return 4 * self.block_out_channels[0]


class TimeEmbedding(nn.Module):
    """The time embedding: cosines then sines of t · 10000^(-i/half), through two linears."""

    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__()
        self.frequencies = frequencies // 2
        self.linear_1 = nn.Linear(frequencies, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Map timesteps (N,), of any number type, to (N, width)."""
        sine, cosine = sincos_encoding(timesteps, self.frequencies)
        code = torch.cat([cosine, sine], dim=-1).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(F.silu(self.linear_1(code)))
        return out


class UNetBlock(nn.Module):
    """The layers of one resolution on one side of the UNet, followed by resampling if there is any."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[SpatialTransformer]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        if attentions:
            self.attentions = nn.ModuleList(attentions)


@dataclass(frozen=True, slots=True)
class UNetLayer:
    """One layer: its residual block, and its spatial transformer with its index among the transformers."""

    resnet: ResnetBlock
    attention: SpatialTransformer | None
    bank: int


class UNet(nn.Module):
    """The shared part: convolution in, time embedding, and the layers with their resampling.

    `layers` lists the layers in the order they run; the i-th spatial transformer among them has bank i.
    """

    def __init__(self, params: UNetParams) -> None:
        super().__init__()
        self.params = params
        widths = params.block_out_channels
        self.conv_in = nn.Conv2d(params.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], params.time_width)
        self.down_blocks = nn.ModuleList(_build_down_blocks(params))
        self.mid_block = _build_block(params, [widths[-1]] * 2, widths[-1], attentions=1)
        self.up_blocks = nn.ModuleList(_build_up_blocks(params))
        self.layers = tuple(self._list_layers())
        self.block_context: Callable[[int], AbstractContextManager[object]] = nullcontext
        """A context for computing with the weights of a unit: it loads them where they may be offloaded."""
        self.run_context: Callable[[], AbstractContextManager[object]] = nullcontext
        """A context around all uses of `block_context` in one run; units come in order, and some may be skipped."""

    def blocks(self) -> list[UNetBlock]:
        """Return every block, in the order they run."""
        return [cast("UNetBlock", block) for block in (*self.down_blocks, self.mid_block, *self.up_blocks)]

    def units(self) -> list[tuple[nn.Module, ...]]:
        """Return the modules of each layer and each resampling, in run order, as `block_context` counts them."""
        found: list[tuple[nn.Module, ...]] = []
        for block in self.blocks():
            lists = [getattr(block, name) for name in _MODULE_LISTS if hasattr(block, name)]
            for index in range(len(block.resnets)):
                found.append(tuple(modules[index] for modules in lists if index < len(modules)))
            found += [
                (module,) for name in ("downsamplers", "upsamplers") for module in getattr(block, name, ())
            ]
        return found

    def run_layers(
        self, hidden: Tensor, run: Callable[[int, TensorWithStats], TensorWithStats]
    ) -> TensorWithStats:
        """Run all layers from the output of `conv_in`, (N, C, h, w), to the last one's output.

        `run(i, x)` computes layer i; h and w must be multiples of 2^(levels - 1).
        """
        number, unit = count(), count()
        x = TensorWithStats(hidden)
        skips = [hidden]

        # No helper functions for the repeated parts: their arguments would keep tensors alive that `run` releases.
        with self.run_context():
            for block in self.down_blocks:
                for _ in cast("UNetBlock", block).resnets:
                    with self.block_context(next(unit)):
                        x = run(next(number), x)
                    skips.append(x.tensor)
                for downsample in getattr(block, "downsamplers", ()):
                    with self.block_context(next(unit)):
                        x = TensorWithStats(downsample(x.tensor))
                    skips.append(x.tensor)
            for _ in self.mid_block.resnets:
                with self.block_context(next(unit)):
                    x = run(next(number), x)
            for block in self.up_blocks:
                for _ in cast("UNetBlock", block).resnets:
                    with self.block_context(next(unit)):
                        x = run(next(number), TensorWithStats(torch.cat([x.tensor, skips.pop()], dim=1)))
                for upsample in getattr(block, "upsamplers", ()):
                    with self.block_context(next(unit)):
                        x = TensorWithStats(upsample(x.tensor))
        return x

    def compute_time_features(self, timesteps: Tensor) -> tuple[Tensor, ...]:
        """Return the time feature of each layer's residual block at timesteps (F,): one (F, C) per layer.

        They depend on the weights and the timesteps alone: compute them once for the levels of a schedule.
        """
        embedding = self.time_embedding(timesteps)
        return tuple(self._map_modules(ResnetBlock, lambda resnet: resnet.project_time(embedding)))

    def compute_cross_constants(self, image_embeds: Tensor) -> tuple[Tensor, ...]:
        """Return each spatial transformer's cross-attention constant (S, 1, C) for image_embeds (S, 1, width).

        They depend on the weights and the reference alone.
        """
        if image_embeds.ndim != 3 or image_embeds.shape[1] != 1:
            raise ValueError(f"one token per session is needed, image_embeds is {tuple(image_embeds.shape)}")
        return tuple(self._map_modules(SpatialTransformer, lambda each: each.cross_constant(image_embeds)))

    def _map_modules(self, kind: type[M], compute: Callable[[M], R]) -> list[R]:
        """Return `compute` of each module of that kind, in order."""
        results: list[R] = []
        with self.run_context():
            for number, modules in enumerate(self.units()):
                for module in modules:
                    if isinstance(module, kind):
                        with self.block_context(number):
                            results.append(compute(module))
        return results

    def _list_layers(self) -> Iterator[UNetLayer]:
        banks = 0
        for block in self.blocks():
            attentions = _attentions_of(block)
            for index, resnet in enumerate(block.resnets):
                attention = attentions[index] if index < len(attentions) else None
                yield UNetLayer(cast("ResnetBlock", resnet), attention, banks)
                banks += attention is not None


def _attentions_of(block: UNetBlock) -> Sequence[SpatialTransformer]:
    """Return a block's spatial transformers; the lowest level has none."""
    return cast("Sequence[SpatialTransformer]", getattr(block, "attentions", ()))


def _build_block(params: UNetParams, incoming: list[int], channels: int, attentions: int) -> UNetBlock:
    """Build a block whose layers take `incoming` channels each and return `channels`."""
    resnets = [ResnetBlock(width, channels, params.time_width, params.norm_groups) for width in incoming]
    transformers = [
        SpatialTransformer(channels, params.heads, params.cross_attention_width, params.norm_groups)
        for _ in range(attentions)
    ]
    return UNetBlock(resnets, transformers)


def _build_down_blocks(params: UNetParams) -> Iterator[UNetBlock]:
    lowest = params.levels - 1
    before = params.block_out_channels[0]
    for level, channels in enumerate(params.block_out_channels):
        incoming = [before] + [channels] * (params.layers_per_block - 1)
        block = _build_block(params, incoming, channels, attentions=0 if level == lowest else len(incoming))
        if level != lowest:
            block.downsamplers = nn.ModuleList([Downsample(channels)])
        yield block
        before = channels


def _build_up_blocks(params: UNetParams) -> Iterator[UNetBlock]:
    skips = _list_skip_channels(params)
    before = params.block_out_channels[-1]
    for level, channels in reversed(list(enumerate(params.block_out_channels))):
        layers = params.layers_per_block + 1
        incoming = [skips.pop() + (before if index == 0 else channels) for index in range(layers)]
        block = _build_block(
            params, incoming, channels, attentions=0 if level == params.levels - 1 else layers
        )
        if level:
            block.upsamplers = nn.ModuleList([Upsample(channels)])
        yield block
        before = channels


def _list_skip_channels(params: UNetParams) -> list[int]:
    """Return the channels of the skip connections, in the order in which the down side produces them."""
    skips = [params.block_out_channels[0]]
    for level, channels in enumerate(params.block_out_channels):
        resampled = level != params.levels - 1
        skips += [channels] * (params.layers_per_block + resampled)
    return skips
