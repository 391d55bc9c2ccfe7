"""How the networks lie in memory, and what they compute with."""

from __future__ import annotations

import torch
from torch import nn

from personalive.pipelines.personalive.kernels.operations import PLAIN, Operations, arrange
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.networks.frame_modules import TemporalAttention
from personalive.pipelines.personalive.networks.layers import GatedProjection
from personalive.pipelines.personalive.networks.resnet import Upsample
from personalive.pipelines.personalive.networks.spatial import SpatialBlock


def lay_out(models: Models, operations: Operations) -> None:
    """Have all networks compute with these operations and, where they are fused, lie channels-last.

    Convolutions are faster so on a GPU (13.9 ms of 19.1 in the denoising UNet, 20.7 of 29.5 in the decoder, on an
    H100), but PyTorch's group norm turns pictures back: without a norm of our own it would only cost copies.
    """
    for network in models.networks().values():
        arrange(network, operations)
    if operations is PLAIN:
        return
    convolutional = {"denoising_unet", "reference_unet", "motion_encoder", "pose_guider", "tiny_vae"}
    here = {name: network for name, network in models.networks().items() if name not in models.shelves}
    for name, network in here.items():
        if name in convolutional:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if operations.pairs:
            _pair_gates(network)
    models.vae.decoder.to(memory_format=torch.channels_last)
    # Merged weights take more room, and the reference UNet runs but once per reference or keyframe.
    merge_upsampling(models.denoising_unet)
    _merge_projections(models.denoising_unet)


def lay_out_decoder(decoder: nn.Module, operations: Operations) -> None:
    """The same for a decoder that has taken over the weights of one of the networks."""
    arrange(decoder, operations)
    if operations is not PLAIN:
        merge_upsampling(decoder)
        decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _merge_projections(network: nn.Module) -> None:
    """One product for query, key and value wherever tokens attend to each other."""
    for module in network.modules():
        if isinstance(module, SpatialBlock):
            module.attn1.merge()
        elif isinstance(module, TemporalAttention):
            module.merge()


def _pair_gates(network: nn.Module) -> None:
    """One kernel for a gate and the linear before it."""
    for module in network.modules():
        if isinstance(module, GatedProjection):
            module.pair()


def merge_upsampling(network: nn.Module) -> None:
    """Double sizes in one convolution instead of a copy and one; see `Upsample.merge`."""
    for module in network.modules():
        if isinstance(module, Upsample):
            module.merge()
