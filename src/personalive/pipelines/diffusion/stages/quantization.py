"""Quantization of layers to 8-bit floats, each together with the norm before it; see `kernels/fp8.py`.

The gain of a norm's output follows from its weights: normed values have a root mean square of one, weights and
biases turn it into √(mean(γ² + β²)), and the gain brings that to about 8. Codes then have their full precision from
0.002 to 56 times it. The output of a gate is as large as the product of both halves of the linear before it, whose
sizes follow from its weights and from the norm before it. It is brought to about 2, because of its long tails.

Layers without a norm before them are not quantized: that would take a pass over memory, which costs as much as the
faster product saves. Nor is the reference UNet, which runs once per reference or keyframe and not in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.kernels import gpu_support
from personalive.pipelines.diffusion.kernels.fp8 import (
    MULTIPLE,
    Float8Convolution,
    Float8GEGLU,
    Float8GroupNorm,
    Float8LayerNorm,
    Float8Linear,
    geglu_output_rms,
    norm_output_rms,
    power_of_two_gain,
    quantize_fp8,
)
from personalive.pipelines.diffusion.kernels.kernel_errors import is_memory_failure
from personalive.pipelines.diffusion.kernels.operations import (
    Operations,
    OperationsModule,
    TensorWithStats,
    set_operations,
)
from personalive.pipelines.diffusion.networks.layers import (
    GEGLU,
    Attention,
    AttentionStack,
    FeedForward,
)
from personalive.pipelines.diffusion.networks.motion_module import StackedTransformer, TemporalAttention
from personalive.pipelines.diffusion.networks.resnet import ResnetBlock
from personalive.pipelines.diffusion.networks.spatial_transformer import (
    SpatialTransformer,
    SpatialTransformerBlock,
    pointwise,
)
from personalive.pipelines.diffusion.parameters import Float8Layers
from personalive.pipelines.diffusion.stages.memory_format import LATENT, StepSize, levels

_WIDEST = 1280
"""Quantizing only feed-forwards from this width on gives a small error: 55 dB, as against 43 dB for all of them."""
_CONVOLUTION = "convolution"
_NORMED, _GATED = 8.0, 2.0
"""Root mean squares of the codes after a norm and after a gate."""
_SINES = 0.5
"""The mean square of a positional encoding."""

_PARTS: dict[str, frozenset[str]] = {
    "feed-forwards": frozenset({"widest"}),
    "unet": frozenset({"widest", "feed-forwards", "convolutions"}),
    "decoder": frozenset({"widest", "feed-forwards", "convolutions", "decoder"}),
    "all": frozenset({"widest", "feed-forwards", "convolutions", "decoder", "projections"}),
}


_Place = tuple[nn.Module, str]
"""A module, and the attribute of it that holds another."""
_Pictures = tuple[int, tuple[int, int]]
"""The number of pictures, and their height and width."""


class Float8FeedForward(OperationsModule):
    """A feed-forward of 8-bit codes: a GEGLU to four times the width, and a linear back."""

    residual_bias = None
    """None, see `FeedForward`: the product adds its bias itself."""

    def __init__(self, plain: FeedForward, norm: nn.LayerNorm, gain: float) -> None:
        super().__init__()
        first, last = cast("GEGLU", plain.net[0]).in_pairs(), cast("nn.Linear", plain.net[-1])
        onward = power_of_two_gain(geglu_output_rms(first, norm), _GATED)
        self.inward = Float8GEGLU(first.weight, first.bias, gain, onward)
        self.outward = Float8Linear(last.weight, last.bias, onward)

    def add_to(self, total: Tensor, codes: Tensor) -> Tensor:
        """Return `total` plus the feed-forward's output for the codes, both (B, T, width)."""
        update: Tensor = self.outward(self.operations.geglu_fp8(codes, self.inward))
        return update.add_(total)


Norm = nn.GroupNorm | nn.LayerNorm


@dataclass(frozen=True)
class _NormLayerPair:
    """A norm and the layer after it.

    `given`: the shape of the norm's input; `install` puts other modules in place of both; `added`: the mean square
    of what is added to the norm's output.
    """

    kind: str
    norm: Norm
    layer: nn.Module
    given: tuple[int, ...]
    install: Callable[[nn.Module, nn.Module], None]
    added: float = 0.0

    @property
    def key(self) -> tuple[Hashable, ...]:
        shapes = tuple(tuple(each.shape) for each in self.layer.parameters() if each.ndim > 1)
        return self.kind, self.given, shapes

    def quantized(self) -> tuple[nn.Module, nn.Module]:
        """Return the 8-bit versions of both."""
        norm, layer = self.norm, self.layer
        gain = power_of_two_gain(norm_output_rms(norm, self.added), _NORMED)
        if isinstance(norm, nn.LayerNorm):
            eight: nn.Module = Float8LayerNorm(norm, gain)
            if isinstance(layer, FeedForward):
                return eight, Float8FeedForward(layer, norm, gain)
        else:
            eight = Float8GroupNorm(norm, gain)
            if self.kind == _CONVOLUTION:
                return eight, Float8Convolution(cast("nn.Conv2d", layer), gain)
        weight, bias = cast("Tensor", layer.weight), cast("Tensor | None", layer.bias)
        return eight, Float8Linear(weight.flatten(1), bias, gain)

    def run(self, operations: Operations, norm: nn.Module, layer: nn.Module, x: Tensor) -> object:
        """Run a norm and a layer, these or their 8-bit versions, on an input of the norm, on the device."""
        if isinstance(norm, nn.LayerNorm):
            if not isinstance(layer, FeedForward | Float8FeedForward):
                return layer(operations.layer_norm(x, norm, x).normed)
            both = operations.layer_norm(x, norm, x, bias=layer.residual_bias)
            return layer.add_to(both.sum, both.normed)
        silu = self.kind == _CONVOLUTION
        normed = operations.group_norm(TensorWithStats(x), cast("nn.GroupNorm", norm), silu=silu)
        if silu:
            return operations.conv(normed, cast("nn.Conv2d", layer))
        tokens = normed.flatten(2).transpose(1, 2)
        return pointwise(tokens, layer) if isinstance(layer, nn.Conv2d) else layer(tokens)


def quantize(
    components: Components, operations: Operations, layers: Float8Layers, size: StepSize | None = None
) -> None:
    """Quantize in place those layers named by `layers` that `operations` finds faster so in a step of that size.

    `optimize` must have run before. Raises `InputError` where the device cannot multiply 8-bit floats.
    """
    require_float8(components.device)
    size, known = size or StepSize(), dict[tuple[Hashable, ...], bool]()
    for pair in list(_find_pairs(components, _PARTS[layers], size)):
        with _moved_to(pair, components.device) as home:
            eight = pair.quantized()
            for each in eight:
                set_operations(each, operations)
            if pair.key not in known:
                known[pair.key] = _is_faster(pair, operations, eight, components)
            if known[pair.key]:
                pair.install(*(each.to(home) for each in eight))


@contextmanager
def _moved_to(pair: _NormLayerPair, device: torch.device) -> Iterator[torch.device]:
    """Keep the pair's modules on the device for the time of the block; yields the device they return to.

    That is the host for a network that will be streamed.
    """
    home = next(pair.layer.parameters()).device
    away = [] if home.type == device.type else [pair.norm, pair.layer]
    for module in away:
        module.to(device)
    try:
        yield home
    finally:
        for module in away:
            module.to(home)


def _is_faster(
    pair: _NormLayerPair, operations: Operations, eight: tuple[nn.Module, nn.Module], models: Components
) -> bool:
    x = torch.empty(pair.given, dtype=models.dtype, device=models.device)
    if len(pair.given) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    if not x.is_meta:
        x.normal_(generator=torch.Generator(x.device).manual_seed(0))
    return operations.prefers_replacement(
        f"8-bit {pair.kind}",
        (pair.key[1:], models.dtype),
        lambda: pair.run(operations, *eight, x),
        lambda: pair.run(operations, pair.norm, pair.layer, x),
    )


def require_float8(device: torch.device) -> None:
    """Raise `InputError` where the device cannot multiply 8-bit floats.

    A GPU's compute capability is checked, since a library may emulate what a GPU lacks; a product is tried as well,
    since the library may lack what the GPU can do. A CPU needs neither: `Float8Linear` and `Float8Convolution`
    dequantize there, with any instructions.
    """
    if device.type in {"meta", "cpu"}:
        return
    refusal = InputError(
        f"dtype=float8 needs a GPU that multiplies 8-bit floats (compute capability 8.9 or 9.0 and later), "
        f"and {device} does not: take float16, bfloat16 or auto."
    )
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < gpu_support.MIN_FLOAT8_CAPABILITY:
        raise refusal
    try:
        one = torch.ones((), device=device)
        sample = quantize_fp8(torch.ones(MULTIPLE, MULTIPLE, device=device), 1.0)
        torch._scaled_mm(sample, sample.T, scale_a=one, scale_b=one, out_dtype=torch.float16)
    except (RuntimeError, TypeError, ValueError) as error:
        if is_memory_failure(error):
            raise
        raise refusal from None


def _find_pairs(models: Components, parts: frozenset[str], size: StepSize) -> Iterator[_NormLayerPair]:
    unet = models.denoising_unet
    height, width = size.height // LATENT, size.width // LATENT
    for level, block in levels(unet):
        side = (max(height >> level, 1), max(width >> level, 1))
        for module in block.modules():
            for pair in _pairs_of(module, size.window, side):
                if _is_selected(pair, parts):
                    yield pair
    if "decoder" not in parts:
        return
    decoder = models.vae.decoder
    levels_of: list[tuple[int, nn.Module]] = [(0, decoder.mid_block), *enumerate(decoder.up_blocks)]
    for doubled, part in levels_of:
        for module in part.modules():
            yield from _pairs_of(module, size.decoded, (height << doubled, width << doubled))


def _is_selected(pair: _NormLayerPair, parts: frozenset[str]) -> bool:
    if isinstance(pair.layer, FeedForward):
        return "feed-forwards" in parts or ("widest" in parts and pair.layer.width >= _WIDEST)
    return ("convolutions" if pair.kind == _CONVOLUTION else "projections") in parts


def _pairs_of(module: nn.Module, frames: int, side: tuple[int, int]) -> Iterator[_NormLayerPair]:
    """Yield a module's direct pairs, for pictures of that size; those whose widths are not aligned are left out."""
    pictures = (frames, side)
    if isinstance(module, ResnetBlock):
        for number in ("1", "2"):
            yield from _pair(_CONVOLUTION, (module, f"norm{number}"), (module, f"conv{number}"), pictures)
    elif isinstance(module, SpatialTransformer | StackedTransformer):
        yield from _pair("projection in", (module, "norm"), (module, "proj_in"), pictures)
    elif isinstance(module, SpatialTransformerBlock):
        yield from _self_attention_pair((module, "norm1"), module.attn1, pictures, alone=False)
        yield from _pair("feed-forward", (module, "norm3"), (module, "ff"), pictures)
    elif isinstance(module, AttentionStack):
        for index, attention in enumerate(module.attention_blocks):
            norm = (module.norms, str(index))
            if isinstance(attention, TemporalAttention):
                yield from _self_attention_pair(norm, attention, pictures, alone=True)
            else:
                yield from _pair("query", norm, (attention, "to_q"), pictures)
        yield from _pair("feed-forward", (module, "ff_norm"), (module, "ff"), pictures)


def _pair(kind: str, norm: _Place, layer: _Place, pictures: _Pictures) -> Iterator[_NormLayerPair]:
    before, plain = getattr(*norm), getattr(*layer)

    def install(its_norm: nn.Module, its_layer: nn.Module) -> None:
        setattr(*norm, its_norm)
        setattr(*layer, its_layer)

    if _is_aligned(plain):
        yield _NormLayerPair(kind, before, plain, _input_shape(before, pictures), install)


def _self_attention_pair(
    norm: _Place, attention: Attention, pictures: _Pictures, *, alone: bool
) -> Iterator[_NormLayerPair]:
    if attention.takes_codes or not _is_aligned(attention.to_q):
        return
    before, weight = getattr(*norm), attention.together()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)

    def install(its_norm: nn.Module, layer: nn.Module) -> None:
        setattr(*norm, its_norm)
        attention.take_codes(cast("Float8Linear", layer), alone=alone)

    shape = _input_shape(before, pictures)
    yield _NormLayerPair("self-attention", before, plain, shape, install, _SINES if alone else 0.0)


def _input_shape(norm: Norm, pictures: _Pictures) -> tuple[int, ...]:
    """Return the shape of a norm's input: pictures, or their pixels as tokens."""
    frames, (height, width) = pictures
    if isinstance(norm, nn.GroupNorm):
        return frames, norm.num_channels, height, width
    return frames, height * width, *norm.normalized_shape


def _is_aligned(layer: nn.Module) -> bool:
    """Return whether a product of codes can have the layer's widths; False for a layer that takes codes already."""
    if isinstance(layer, FeedForward):
        widths = [layer.width]
    elif isinstance(layer, nn.Conv2d):
        widths = [layer.in_channels, layer.out_channels]
    elif isinstance(layer, nn.Linear):
        widths = [layer.in_features, layer.out_features]
    else:
        return False
    return all(width % MULTIPLE == 0 for width in widths)
