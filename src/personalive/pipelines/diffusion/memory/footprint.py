"""The bytes that weights and a step take, counted from the networks before any of them is read.

Weights are known exactly. What each part of a step needs in addition is proportional to pixels and frames. The
factors were counted by tracing the networks on the meta device (`tests/…/memory/test_footprint.py` repeats that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet
from personalive.pipelines.diffusion.networks.resnet import Upsample
from personalive.pipelines.diffusion.networks.spatial_transformer import SpatialTransformer
from personalive.pipelines.diffusion.networks.unet import UNet
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters

EntryDtype = Callable[[str, str], torch.dtype]
"""A function of a network's and an entry's name that returns the floating-point type the entry is kept in."""

_FUSED_UPSAMPLE_GROWTH = 16 / 9 - 1
"""The growth of an upsampling's weights when it becomes one convolution; see `Upsample.fuse_conv_transpose`."""
_PIXELS_PER_LATENT = 8 * 8
"""Pixels that one latent stands for."""

# Elements that are alive at the peak, as multiples of a network's first width.
_UNET_FACTOR = 31.2
"""For each of a frame's latents: in the feed-forward at 64×64, its input four times, and twice 8 times as wide."""
_DECODER_FACTOR = 6.2
"""For each pixel: a norm at full size, of twice the width."""
_ENCODER_FACTOR = 5.2
_POSE_BYTES = 112
"""Bytes for each pixel of a window's poses, pose image included."""
_MOTION_BYTES = 64 << 20
"""Bytes for each driving frame, in networks of a fixed size."""
_REFERENCE_FACTOR = 34
"""For each of a reference's latents, in the reference UNet: the same feed-forward, and the features it collects."""
_OUTPUT_BYTES = 64
"""Bytes for each pixel of a chunk's frames, while they are converted to uint8."""


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of a set of networks as they are kept on a device.

    `networks`: by name, where "vae" excludes "vae.encoder", which has an entry too; `units`: of each of the
    denoising UNet's units, which can be streamed; `reference_unit`: of the reference UNet's largest unit.
    """

    networks: Mapping[str, int]
    units: tuple[int, ...]
    reference_unit: int


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes in addition to the weights, at one size and with one number of keyframes.

    `bank`: keys and values of one reference or keyframe; `unet`, `motion` and `pose`: those alive at the peak of
    each stage, for one session; `decode`: of one frame while it is decoded; `output`: of a chunk's frames until
    they leave; `encode` and `reference`: alive while a reference is encoded and run through the reference UNet.
    """

    bank: int
    unet: int
    motion: int
    pose: int
    decode: int
    output: int
    encode: int
    reference: int


def count_weight_bytes(networks: Mapping[str, nn.Module], entry_dtype: EntryDtype) -> WeightBytes:
    """Count the bytes of networks by name, those of `Components`; they may be on the meta device."""
    counted: dict[str, int] = {}
    for name, network in networks.items():
        counted[name] = _count_bytes(network, _bind_network(entry_dtype, name))
        if isinstance(network, Autoencoder):
            counted["vae.encoder"] = _count_bytes(
                network.encoder, _bind_network(entry_dtype, name, "encoder.")
            )
            counted[name] -= counted["vae.encoder"]
    denoising = cast("DenoisingUNet", networks["denoising_unet"])
    reference = cast("UNet", networks["reference_unet"])
    return WeightBytes(
        counted,
        _count_unit_bytes(denoising, _bind_network(entry_dtype, "denoising_unet")),
        max(_count_unit_bytes(reference, _bind_network(entry_dtype, "reference_unet"))),
    )


def _bind_network(entry_dtype: EntryDtype, network: str, prefix: str = "") -> Callable[[str], torch.dtype]:
    """Return a function for the type that entries of a network, or of its part with that prefix, are kept in."""
    return lambda entry: entry_dtype(network, prefix + entry)


def _count_bytes(network: nn.Module, entry_dtype: Callable[[str], torch.dtype]) -> int:
    total: int = sum(
        tensor.numel() * (entry_dtype(name) if tensor.is_floating_point() else tensor.dtype).itemsize
        for name, tensor in network.state_dict().items()
    )
    return total + round(_FUSED_UPSAMPLE_GROWTH * _count_upsample_bytes(network, entry_dtype))


def _count_upsample_bytes(network: nn.Module, entry_dtype: Callable[[str], torch.dtype]) -> int:
    """Count the bytes of the convolutions after upsamplings that are not fused with them yet."""
    return sum(
        module.conv.weight.numel() * entry_dtype(f"{name}.conv.weight".lstrip(".")).itemsize
        for name, module in network.named_modules()
        if isinstance(module, Upsample) and isinstance(module.conv, nn.Conv2d)
    )


def _count_unit_bytes(network: UNet, entry_dtype: Callable[[str], torch.dtype]) -> tuple[int, ...]:
    names = {id(module): name for name, module in network.named_modules()}

    def size(module: nn.Module) -> int:
        return _count_bytes(module, lambda entry: entry_dtype(f"{names[id(module)]}.{entry}"))

    return tuple(sum(size(module) for module in unit) for unit in network.units())


def count_step_bytes(
    networks: Mapping[str, nn.Module], parameters: PersonaLiveLoadParameters, dtype: torch.dtype
) -> StepBytes:
    """Count the bytes that a step takes in addition to the weights."""
    denoising = cast("DenoisingUNet", networks["denoising_unet"])
    autoencoder = cast("Autoencoder", networks["vae"])
    size, chunk = dtype.itemsize, parameters.temporal_window_size
    frames = chunk * parameters.temporal_adaptive_step
    pixels = parameters.height * parameters.width
    latents = pixels // _PIXELS_PER_LATENT
    width, decoder = denoising.params.block_out_channels[0], autoencoder.params.block_out_channels[0]
    return StepBytes(
        bank=size * _count_bank_elements(denoising, parameters.height // 8, parameters.width // 8),
        unet=round(_UNET_FACTOR * width * frames * latents * size),
        motion=_MOTION_BYTES * chunk,
        pose=_POSE_BYTES * frames * pixels,
        decode=round(_DECODER_FACTOR * decoder * pixels * size),
        output=_OUTPUT_BYTES * chunk * pixels,
        encode=count_encoder_bytes(autoencoder, pixels),
        reference=round(_REFERENCE_FACTOR * width * latents * size),
    )


def count_encoder_bytes(autoencoder: Autoencoder, pixels: int) -> int:
    """Count the bytes that are alive while that number of pixels is encoded, in float32."""
    return round(_ENCODER_FACTOR * autoencoder.params.block_out_channels[0] * pixels * torch.float32.itemsize)


def _count_bank_elements(network: UNet, height: int, width: int) -> int:
    """Count the elements of the keys and values of one reference, whose latents are height × width."""
    levels = network.params.levels
    numbers = 0
    for place, block in enumerate(network.blocks()):
        level = min(place, levels - 1) if place <= levels else 2 * levels - place
        attentions: Sequence[SpatialTransformer] = getattr(block, "attentions", ())
        for attention in attentions:
            numbers += 2 * attention.norm.num_channels * (height >> level) * (width >> level)
    return numbers
