"""How many bytes weights and a step take, counted from the networks before any of them is read.

Weights are known exactly. What a step needs beside them is, for each part, proportional to pixels and frames: the
factors were counted by tracing the networks on the meta device (`tests/…/speed/test_counting.py` counts again).
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
from personalive.pipelines.diffusion.networks.unet import Trunk
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters

KeptAs = Callable[[str, str], torch.dtype]
"""Network and entry → the floating-point type that the entry is kept in."""

_MERGED = 16 / 9 - 1
"""What a doubling's weights grow by when it becomes one convolution; see `Upsample.merge`."""
_LATENT = 8 * 8
"""Pixels of one of the latents."""

# Numbers that are alive at the peak, in terms of a network's first width.
_UNET = 31.2
"""Of each frame's latent pixel: at 64×64 in the feed-forward, its input four times, twice eight times as wide."""
_DECODER = 6.2
"""Of each pixel: a norm at full size, of twice the width."""
_ENCODER = 5.2
_POSE = 112
"""Bytes of each pixel of a window's poses, canvas and all."""
_SEEN = 64 << 20
"""Bytes for each driving frame, in networks of a fixed size."""
_REFERENCE = 34
"""Of each of a reference's latent pixels, in the reference UNet: the same feed-forward, and what it has found."""
_SHOWN = 64
"""Bytes of each pixel of a chunk's frames, on their way to uint8."""


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of a set of networks as they are kept on a device.

    `networks`: by name, "vae" without "vae.encoder", which is named by itself; `units`: of each of the denoising
    UNet's units, what can stream; `reference_unit`: the reference UNet's largest.
    """

    networks: Mapping[str, int]
    units: tuple[int, ...]
    reference_unit: int


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes beside the weights, at one size and with one number of keyframes.

    `bank`: keys and values of one reference or keyframe; of one session `unet`, `see` and `pose`, alive at the peak
    of each stage; `decoded`: of one frame while it is decoded, `shown` of each until it leaves; `encoded` and
    `referred`: alive while a reference is encoded and run through the reference UNet.
    """

    bank: int
    unet: int
    see: int
    pose: int
    decoded: int
    shown: int
    encoded: int
    referred: int


def weight_bytes(networks: Mapping[str, nn.Module], kept_as: KeptAs) -> WeightBytes:
    """Count networks by name, those of `Models`; they may be on the meta device."""
    counted: dict[str, int] = {}
    for name, network in networks.items():
        counted[name] = _counted(network, _of(kept_as, name))
        if isinstance(network, Autoencoder):
            counted["vae.encoder"] = _counted(network.encoder, _of(kept_as, name, "encoder."))
            counted[name] -= counted["vae.encoder"]
    denoising = cast("DenoisingUNet", networks["denoising_unet"])
    reference = cast("Trunk", networks["reference_unet"])
    return WeightBytes(
        counted,
        _units(denoising, _of(kept_as, "denoising_unet")),
        max(_units(reference, _of(kept_as, "reference_unet"))),
    )


def _of(kept_as: KeptAs, network: str, beginning: str = "") -> Callable[[str], torch.dtype]:
    """What entries of a network, or of its part that is named so, are kept in."""
    return lambda entry: kept_as(network, beginning + entry)


def _counted(network: nn.Module, kept_as: Callable[[str], torch.dtype]) -> int:
    total: int = sum(
        tensor.numel() * (kept_as(name) if tensor.is_floating_point() else tensor.dtype).itemsize
        for name, tensor in network.state_dict().items()
    )
    return total + round(_MERGED * _doubling(network, kept_as))


def _doubling(network: nn.Module, kept_as: Callable[[str], torch.dtype]) -> int:
    """Bytes of the convolutions after doublings that may yet be merged with them."""
    return sum(
        module.conv.weight.numel() * kept_as(f"{name}.conv.weight".lstrip(".")).itemsize
        for name, module in network.named_modules()
        if isinstance(module, Upsample) and isinstance(module.conv, nn.Conv2d)
    )


def _units(network: Trunk, kept_as: Callable[[str], torch.dtype]) -> tuple[int, ...]:
    names = {id(module): name for name, module in network.named_modules()}

    def size(module: nn.Module) -> int:
        return _counted(module, lambda entry: kept_as(f"{names[id(module)]}.{entry}"))

    return tuple(sum(size(module) for module in unit) for unit in network.units())


def step_bytes(
    networks: Mapping[str, nn.Module], parameters: PersonaLiveLoadParameters, dtype: torch.dtype
) -> StepBytes:
    """Count what a step takes beside the weights."""
    denoising = cast("DenoisingUNet", networks["denoising_unet"])
    autoencoder = cast("Autoencoder", networks["vae"])
    size, chunk = dtype.itemsize, parameters.temporal_window_size
    frames = chunk * parameters.temporal_adaptive_step
    pixels = parameters.height * parameters.width
    latents = pixels // _LATENT
    width, decoder = denoising.params.block_out_channels[0], autoencoder.params.block_out_channels[0]
    return StepBytes(
        bank=size * _bank(denoising, parameters.height // 8, parameters.width // 8),
        unet=round(_UNET * width * frames * latents * size),
        see=_SEEN * chunk,
        pose=_POSE * frames * pixels,
        decoded=round(_DECODER * decoder * pixels * size),
        shown=_SHOWN * chunk * pixels,
        encoded=encoded_bytes(autoencoder, pixels),
        referred=round(_REFERENCE * width * latents * size),
    )


def encoded_bytes(autoencoder: Autoencoder, pixels: int) -> int:
    """Bytes that are alive while so many pixels are encoded, in float32."""
    return round(_ENCODER * autoencoder.params.block_out_channels[0] * pixels * torch.float32.itemsize)


def _bank(network: Trunk, height: int, width: int) -> int:
    """Numbers in the keys and values of one reference, of latents height × width."""
    levels = network.params.levels
    numbers = 0
    for place, block in enumerate(network.blocks()):
        level = min(place, levels - 1) if place <= levels else 2 * levels - place
        attentions: Sequence[SpatialTransformer] = getattr(block, "attentions", ())
        for attention in attentions:
            numbers += 2 * attention.norm.num_channels * (height >> level) * (width >> level)
    return numbers
