"""The networks' operations and memory format: channels-last, with layers fused where that is faster."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS, Operations, set_operations
from personalive.pipelines.diffusion.networks.layers import GEGLU
from personalive.pipelines.diffusion.networks.motion_module import TemporalAttention
from personalive.pipelines.diffusion.networks.patch_attention import PatchAttention
from personalive.pipelines.diffusion.networks.resnet import Upsample
from personalive.pipelines.diffusion.networks.spatial_transformer import SpatialTransformerBlock
from personalive.pipelines.diffusion.networks.unet import UNet, UNetBlock

LATENT = 8
"""Pixels of a frame along a side for each latent along it."""


class StepSize(NamedTuple):
    """The sizes of one session's steps: a frame in pixels; frames of a window, of a chunk, and decoded at once."""

    height: int = 512
    width: int = 512
    window: int = 16
    chunk: int = 4
    decoded: int = 2


def optimize(components: Components, operations: Operations, size: StepSize | None = None) -> None:
    """Have all networks compute with these operations; with fused ones, also convert the weights to channels-last.

    Convolutions are faster in that format on a GPU (13.9 ms of 19.1 in the denoising UNet, 20.7 of 29.5 in the
    decoder, on an H100). But PyTorch's group norm converts pictures back, so without our group norm the format
    would only cost copies. Gates are paired with the linears before them where that is faster at the step's size.
    """
    # The autoencoder's encoder stays as it is, in float32, since it runs once per reference.
    networks = components.networks() | {"vae": components.vae.decoder}
    for network in networks.values():
        set_operations(network, operations)
    if operations is PLAIN_OPERATIONS:
        return
    convolutional = {"denoising_unet", "reference_unet", "motion_encoder", "pose_guider", "vae", "tiny_vae"}
    rows = count_geglu_rows(components, size or StepSize())
    for name, network in networks.items():
        if name in components.offloaded:
            continue
        # Fused weights take more memory, and the reference UNet runs only once per reference or keyframe.
        if name != "reference_unet":
            fuse_upsampling(network)
        if name in convolutional:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _pair_geglus(network, operations, rows, components.device)
    _fuse_qkv(components.denoising_unet)


def _fuse_qkv(network: nn.Module) -> None:
    """Compute query, key and value by one product in every self-attention."""
    for module in network.modules():
        if isinstance(module, SpatialTransformerBlock):
            module.attn1.fuse_qkv()
        elif isinstance(module, TemporalAttention):
            module.fuse_qkv()


def count_geglu_rows(components: Components, size: StepSize) -> dict[GEGLU, int]:
    """Return how many tokens each gated linear is given at once."""
    found: dict[GEGLU, int] = {}
    pixels = size.height * size.width // LATENT**2
    for trunk, frames in ((components.denoising_unet, size.window), (components.reference_unet, 1)):
        for level, block in levels(trunk):
            found |= dict.fromkeys(_find_geglus(block), frames * pixels // 4**level)
    for module in components.motion_encoder.modules():
        if isinstance(module, PatchAttention):
            found |= dict.fromkeys(_find_geglus(module), size.chunk * module.side**2)
    return found


def levels(trunk: UNet) -> list[tuple[int, UNetBlock]]:
    """Return every block in the order in which they run, each with the number of halvings of the size before it."""
    lowest, blocks = trunk.params.levels - 1, trunk.blocks()
    # Down, the middle at the lowest level, and up again.
    return [(min(place, lowest, len(blocks) - 1 - place), block) for place, block in enumerate(blocks)]


def _find_geglus(network: nn.Module) -> list[GEGLU]:
    return [module for module in network.modules() if isinstance(module, GEGLU)]


def _pair_geglus(
    network: nn.Module, operations: Operations, rows: Mapping[GEGLU, int], device: torch.device
) -> None:
    """Compute a gate and the linear before it by one kernel, where that is faster on the device."""
    for module in _find_geglus(network):
        if (
            module in rows
            and not module.is_interleaved
            and operations.prefers_interleaved(rows[module], _on_device(module.proj, device))
        ):
            module.interleave()


def _on_device(linear: nn.Linear, device: torch.device) -> nn.Linear:
    """Return the linear, or a copy on the device where the linear waits on the host to be streamed later."""
    return linear if linear.weight.device.type == device.type else deepcopy(linear).to(device)


def fuse_upsampling(network: nn.Module) -> None:
    """Double sizes by one transposed convolution instead of a copy and a convolution; see `Upsample`."""
    for module in network.modules():
        if isinstance(module, Upsample):
            module.fuse_conv_transpose()
