"""How the networks lie in memory, and what they compute with."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from personalive.pipelines.diffusion.components import Models
from personalive.pipelines.diffusion.kernels.operations import PLAIN, Operations, arrange
from personalive.pipelines.diffusion.networks.layers import GatedProjection
from personalive.pipelines.diffusion.networks.motion_module import TemporalAttention
from personalive.pipelines.diffusion.networks.patch_attention import PatchAttention
from personalive.pipelines.diffusion.networks.resnet import Upsample
from personalive.pipelines.diffusion.networks.spatial_transformer import SpatialBlock
from personalive.pipelines.diffusion.networks.unet import Block, Trunk

LATENT = 8
"""Pixels of a frame along a side for each of its latents'."""


class StepSize(NamedTuple):
    """Of the steps of one session: pixels of a frame, frames of a window, of a chunk, and decoded at once."""

    height: int = 512
    width: int = 512
    window: int = 16
    chunk: int = 4
    decoded: int = 2


def lay_out(models: Models, operations: Operations, size: StepSize | None = None) -> None:
    """Have all networks compute with these operations and, where they are fused, lie channels-last.

    Convolutions are faster so on a GPU (13.9 ms of 19.1 in the denoising UNet, 20.7 of 29.5 in the decoder, on an
    H100), but PyTorch's group norm turns pictures back: without a norm of our own it would only cost copies.
    Gates are paired with the linears before them where that is faster at the step's size.
    """
    # The autoencoder's encoder stays as it is, in float32: it runs once a reference.
    networks = models.networks() | {"vae": models.vae.decoder}
    for network in networks.values():
        arrange(network, operations)
    if operations is PLAIN:
        return
    convolutional = {"denoising_unet", "reference_unet", "motion_encoder", "pose_guider", "vae", "tiny_vae"}
    rows = gated_rows(models, size or StepSize())
    for name, network in networks.items():
        if name in models.shelves:
            continue
        # Merged weights take more room, and the reference UNet runs but once per reference or keyframe.
        if name != "reference_unet":
            merge_upsampling(network)
        if name in convolutional:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _pair_gates(network, operations, rows, models.device)
    _merge_projections(models.denoising_unet)


def _merge_projections(network: nn.Module) -> None:
    """One product for query, key and value wherever tokens attend to each other."""
    for module in network.modules():
        if isinstance(module, SpatialBlock):
            module.attn1.merge()
        elif isinstance(module, TemporalAttention):
            module.merge()


def gated_rows(models: Models, size: StepSize) -> dict[GatedProjection, int]:
    """Gated linear → how many tokens it is given at once."""
    found: dict[GatedProjection, int] = {}
    pixels = size.height * size.width // LATENT**2
    for trunk, frames in ((models.denoising_unet, size.window), (models.reference_unet, 1)):
        for level, block in levels(trunk):
            found |= dict.fromkeys(_gated(block), frames * pixels // 4**level)
    for module in models.motion_encoder.modules():
        if isinstance(module, PatchAttention):
            found |= dict.fromkeys(_gated(module), size.chunk * module.side**2)
    return found


def levels(trunk: Trunk) -> list[tuple[int, Block]]:
    """Every block, in the order they run, and how often sizes were halved before it."""
    lowest, blocks = trunk.params.levels - 1, trunk.blocks()
    # Down, the middle at the lowest level, and up again.
    return [(min(place, lowest, len(blocks) - 1 - place), block) for place, block in enumerate(blocks)]


def _gated(network: nn.Module) -> list[GatedProjection]:
    return [module for module in network.modules() if isinstance(module, GatedProjection)]


def _pair_gates(
    network: nn.Module, operations: Operations, rows: Mapping[GatedProjection, int], device: torch.device
) -> None:
    """One kernel for a gate and the linear before it, where that is faster on the device."""
    for module in _gated(network):
        if module in rows and not module.paired and operations.pairs(rows[module], _on(module.proj, device)):
            module.pair()


def _on(linear: nn.Linear, device: torch.device) -> nn.Linear:
    """The linear, or a copy where it is elsewhere: a network that will be streamed is on the host still."""
    return linear if linear.weight.device.type == device.type else deepcopy(linear).to(device)


def merge_upsampling(network: nn.Module) -> None:
    """Double sizes in one convolution instead of a copy and one; see `Upsample.merge`."""
    for module in network.modules():
        if isinstance(module, Upsample):
            module.merge()
