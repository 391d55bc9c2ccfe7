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
    # The autoencoder's encoder stays as it is, in float32: it runs once a reference.
    networks = models.networks() | {"vae": models.vae.decoder}
    for network in networks.values():
        arrange(network, operations)
    if operations is PLAIN:
        return
    convolutional = {"denoising_unet", "reference_unet", "motion_encoder", "pose_guider", "vae", "tiny_vae"}
    for name, network in networks.items():
        if name in models.shelves:
            continue
        # Merged weights take more room, and the reference UNet runs but once per reference or keyframe.
        if name != "reference_unet":
            merge_upsampling(network)
        if name in convolutional:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if operations.pairs:
            _pair_gates(network)
    _merge_projections(models.denoising_unet)


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
