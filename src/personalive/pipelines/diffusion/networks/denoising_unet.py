"""The denoising UNet: it predicts the noise of a window of latents, given their conditioning.

What does not change between calls is a separate input, so that it is computed once: time features of a schedule's
levels, keys and values of the reference's banks, the cross-attention constants, and the motion tokens' keys and
values, which move through the window with their frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import OperationsModule, TensorWithStats
from personalive.pipelines.diffusion.networks.motion_module import (
    MotionKeyValues,
    MotionModule,
    TemporalModule,
)
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue, SpatialTransformer
from personalive.pipelines.diffusion.networks.unet import UNet, UNetBlock, UNetParams


@dataclass(frozen=True, slots=True)
class DenoisingUNetParams(UNetParams):
    """Sizes of the denoising UNet; the defaults are those of the released weights.

    `motion_width` is the width of a motion token; `max_frames` bounds the window.
    """

    motion_width: int = 16
    max_frames: int = 32


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The conditioning of the denoising UNet, for S sessions with a window of F frames each.

    time: one (F, C) per layer; motion: per motion module its projected tokens, for S·F frames;
    pose: (S, C, F, h, w); banks: per spatial transformer keys and values (S, M, C) of the reference and of
    the history keyframes; cross: per spatial transformer (S, 1, C).
    """

    time: tuple[Tensor, ...]
    motion: tuple[MotionKeyValues, ...]
    pose: Tensor
    banks: tuple[KeyValue, ...]
    cross: tuple[Tensor, ...]


class DenoisingUNet(UNet, OperationsModule):
    """A UNet applied to every frame, with a motion and a temporal module in every layer but one.

    The exception is the middle block's second layer.
    """

    def __init__(self, params: DenoisingUNetParams) -> None:
        super().__init__(params)
        for block in self.blocks():
            _add_motion_temporal_modules(
                block, params, count=1 if block is self.mid_block else len(block.resnets)
            )
        self.motion_temporal_modules = tuple(
            chain.from_iterable(map(_motion_temporal_modules, self.blocks()))
        )
        self.conv_norm_out = nn.GroupNorm(params.norm_groups, params.block_out_channels[0])
        self.conv_out = nn.Conv2d(params.block_out_channels[0], params.out_channels, 3, padding=1)

    def forward(self, latents: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict the noise ε (S, out_channels, F, h, w) of latents (S, in_channels, F, h, w)."""
        sessions, _, frames, _, _ = latents.shape
        time = [feature.repeat(sessions, 1) if sessions > 1 else feature for feature in conditioning.time]
        motion = iter(conditioning.motion)

        def run(number: int, x: TensorWithStats) -> TensorWithStats:
            layer, modules = self.layers[number], self.motion_temporal_modules[number]
            x = layer.resnet(x, time[number])
            if layer.attention is not None:
                x = layer.attention(x, conditioning.cross[layer.bank], conditioning.banks[layer.bank])
            if modules is not None:
                x = modules[1](modules[0](x, next(motion)), frames)
            return x

        x = self.run_layers(
            self.conv_in(_frames_to_batch(latents)) + _frames_to_batch(conditioning.pose), run
        )
        noise = self.conv_out(self.operations.group_norm(x, self.conv_norm_out, silu=True))
        return cast("Tensor", noise.unflatten(0, (sessions, frames)).transpose(1, 2))

    def project_banks(self, banks: Sequence[Tensor]) -> tuple[KeyValue, ...]:
        """Project one reference's or keyframe's banks to keys and values, one pair per spatial transformer."""
        waiting = iter(banks)
        return tuple(
            self._map_modules(SpatialTransformer, lambda transformer: transformer.project_bank(next(waiting)))
        )

    def project_motion(self, motion: Tensor) -> tuple[MotionKeyValues, ...]:
        """Project motion tokens (N, tokens, motion_width) to keys and values, one entry per motion module.

        One matrix product serves all modules: tokens are narrow, so that a product per module would cost little
        but its launch. It writes less than keeping the old frames' keys and values between calls would copy.
        """
        weights = self.motion_projection_weights()
        parts = iter(F.linear(motion, torch.cat(weights)).split([len(weight) for weight in weights], dim=-1))
        return tuple(
            (KeyValue(next(parts), next(parts)), KeyValue(next(parts), next(parts)))
            for _ in self._motion_modules()
        )

    def motion_projection_weights(self) -> list[Tensor]:
        """Return the weights that `project_motion` uses, also while no motion module's unit runs."""
        return [weight for module in self._motion_modules() for weight in module.projection_weights()]

    def _motion_modules(self) -> list[MotionModule]:
        return [modules[0] for modules in self.motion_temporal_modules if modules is not None]


def concat_banks(sources: Sequence[Sequence[KeyValue]]) -> tuple[KeyValue, ...]:
    """Concatenate the keys and values of all sources along tokens, per spatial transformer."""
    return tuple(
        KeyValue(
            torch.cat([pair.key for pair in pairs], dim=1), torch.cat([pair.value for pair in pairs], dim=1)
        )
        for pairs in zip(*sources, strict=True)
    )


def _frames_to_batch(video: Tensor) -> Tensor:
    """Reshape (S, C, F, h, w) to (S·F, C, h, w)."""
    return video.transpose(1, 2).flatten(0, 1)


def _add_motion_temporal_modules(block: UNetBlock, params: DenoisingUNetParams, count: int) -> None:
    channels = cast("nn.GroupNorm", block.resnets[0].norm2).num_channels
    heads, groups = params.heads, params.norm_groups
    block.motion_modules = nn.ModuleList(
        MotionModule(channels, heads, params.motion_width, groups) for _ in range(count)
    )
    block.temporal_modules = nn.ModuleList(
        TemporalModule(channels, heads, params.max_frames, groups) for _ in range(count)
    )


def _motion_temporal_modules(block: UNetBlock) -> list[tuple[MotionModule, TemporalModule] | None]:
    """Return the motion and temporal module of each layer of the block."""
    motion = cast("nn.ModuleList", block.motion_modules)
    temporal = cast("nn.ModuleList", block.temporal_modules)
    found = list(zip(motion, temporal, strict=True))
    return [*found, *[None] * (len(block.resnets) - len(found))]  # type: ignore[list-item]
