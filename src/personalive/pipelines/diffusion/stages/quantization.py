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
from typing import Any, Generic, TypeVar, cast

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


Norm = TypeVar("Norm", nn.GroupNorm, nn.LayerNorm)
Given = tuple[int, ...]


@dataclass(frozen=True)
class _NormLayerPair(Generic[Norm]):
    """A norm and the layer after it, with functions that run and replace them.

    `given`: the shape of the norm's input. `run`: runs a norm and a layer on an input of the norm, on the device;
    `quantized`: returns the 8-bit versions of both; `install`: puts those in place of the originals.
    """

    kind: str
    norm: Norm
    layer: nn.Module
    given: Given
    run: Callable[[Operations, nn.Module, nn.Module, Tensor], object]
    quantized: Callable[[Norm, nn.Module], tuple[nn.Module, nn.Module]]
    install: Callable[[nn.Module, nn.Module], None]

    @property
    def key(self) -> tuple[Hashable, ...]:
        shapes = tuple(tuple(each.shape) for each in self.layer.parameters() if each.ndim > 1)
        return self.kind, self.given, shapes


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
            eight = pair.quantized(pair.norm, pair.layer)
            for each in eight:
                set_operations(each, operations)
            if pair.key not in known:
                known[pair.key] = _is_faster(pair, operations, eight, components)
            if known[pair.key]:
                pair.install(*(each.to(home) for each in eight))


@contextmanager
def _moved_to(pair: _NormLayerPair[Any], device: torch.device) -> Iterator[torch.device]:
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
    pair: _NormLayerPair[Any], operations: Operations, eight: tuple[nn.Module, nn.Module], models: Components
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

    Its compute capability is checked, since a library may emulate what a GPU lacks; a product is tried as well,
    since the library may lack what the GPU can do.
    """
    if device.type == "meta":
        return
    refusal = InputError(
        f"dtype=float8 needs a GPU that multiplies 8-bit floats (compute capability 8.9 or 9.0 and later), "
        f"and {device} does not: take float16, bfloat16 or auto."
    )
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < gpu_support.MIN_FLOAT8_CAPABILITY:
        raise refusal
    sample = quantize_fp8(torch.ones(MULTIPLE, MULTIPLE, device=device), 1.0)
    one = torch.ones((), device=device)
    try:
        torch._scaled_mm(sample, sample.T, scale_a=one, scale_b=one, out_dtype=torch.float16)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if is_memory_failure(error):
            raise
        raise refusal from None


def _find_pairs(models: Components, parts: frozenset[str], size: StepSize) -> Iterator[_NormLayerPair[Any]]:
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


def _is_selected(pair: _NormLayerPair[Any], parts: frozenset[str]) -> bool:
    if isinstance(pair.layer, FeedForward):
        return "feed-forwards" in parts or ("widest" in parts and pair.layer.width >= _WIDEST)
    return ("convolutions" if pair.kind == "convolution" else "projections") in parts


def _pairs_of(module: nn.Module, frames: int, side: tuple[int, int]) -> Iterator[_NormLayerPair[Any]]:
    """Yield a module's direct pairs, for pictures of that size; those whose widths are not aligned are left out."""
    if isinstance(module, ResnetBlock):
        for number in ("1", "2"):
            yield from _convolution_pair(module, f"norm{number}", f"conv{number}", (frames, side))
    elif isinstance(module, SpatialTransformer | StackedTransformer):
        yield from _projection_pair(module, (frames, side))
    elif isinstance(module, SpatialTransformerBlock):
        given = (frames, side[0] * side[1])
        yield from _self_attention_pairs(module, "norm1", module.attn1, given, alone=False)
        yield from _feed_forward_pairs(module, "norm3", given)
    elif isinstance(module, AttentionStack):
        given = (frames, side[0] * side[1])
        for index, attention in enumerate(module.attention_blocks):
            if isinstance(attention, TemporalAttention):
                yield from _self_attention_pairs(module.norms, str(index), attention, given, alone=True)
            else:
                yield from _query_pairs(module.norms, str(index), cast("Attention", attention), given)
        yield from _feed_forward_pairs(module, "ff_norm", given)


def _convolution_pair(
    block: ResnetBlock, norm: str, layer: str, pictures: tuple[int, tuple[int, int]]
) -> Iterator[_NormLayerPair[Any]]:
    plain, before = getattr(block, layer), getattr(block, norm)
    if not isinstance(plain, nn.Conv2d) or not _is_aligned(plain.in_channels, plain.out_channels):
        return

    def quantized(norm: nn.GroupNorm, layer: nn.Module) -> tuple[nn.Module, nn.Module]:
        gain = power_of_two_gain(norm_output_rms(norm), _NORMED)
        return Float8GroupNorm(norm, gain), Float8Convolution(cast("nn.Conv2d", layer), gain)

    def run(operations: Operations, norm: nn.Module, layer: nn.Module, x: Tensor) -> object:
        normed = operations.group_norm(TensorWithStats(x), cast("nn.GroupNorm", norm), silu=True)
        return operations.conv(normed, cast("nn.Conv2d", layer))

    given = (pictures[0], plain.in_channels, *pictures[1])
    yield _NormLayerPair(
        "convolution", before, plain, given, run, quantized, _make_setter(block, norm, block, layer)
    )


def _projection_pair(
    transformer: SpatialTransformer | StackedTransformer, pictures: tuple[int, tuple[int, int]]
) -> Iterator[_NormLayerPair[Any]]:
    plain, channels = transformer.proj_in, transformer.norm.num_channels
    if isinstance(plain, Float8Linear) or not _is_aligned(channels):
        return

    def quantized(norm: nn.GroupNorm, layer: nn.Module) -> tuple[nn.Module, nn.Module]:
        gain = power_of_two_gain(norm_output_rms(norm), _NORMED)
        return Float8GroupNorm(norm, gain), _quantize_linear(layer, gain)

    def run(operations: Operations, norm: nn.Module, layer: nn.Module, x: Tensor) -> object:
        tokens = (
            operations.group_norm(TensorWithStats(x), cast("nn.GroupNorm", norm)).flatten(2).transpose(1, 2)
        )
        return pointwise(tokens, layer) if isinstance(layer, nn.Conv2d) else layer(tokens)

    given = (pictures[0], channels, *pictures[1])
    install = _make_setter(transformer, "norm", transformer, "proj_in")
    yield _NormLayerPair("projection in", transformer.norm, plain, given, run, quantized, install)


def _query_pairs(
    norms: nn.Module, name: str, attention: Attention, given: Given
) -> Iterator[_NormLayerPair[Any]]:
    plain = attention.to_q
    if not isinstance(plain, nn.Linear) or not _is_aligned(plain.in_features, plain.out_features):
        return

    def quantized(norm: nn.LayerNorm, layer: nn.Module) -> tuple[nn.Module, nn.Module]:
        gain = power_of_two_gain(norm_output_rms(norm), _NORMED)
        return Float8LayerNorm(norm, gain), _quantize_linear(layer, gain)

    install = _make_setter(norms, name, attention, "to_q")
    shape = (*given, plain.in_features)
    yield _NormLayerPair("query", getattr(norms, name), plain, shape, _normed_product, quantized, install)


def _self_attention_pairs(
    norms: nn.Module, name: str, attention: Attention, given: Given, *, alone: bool
) -> Iterator[_NormLayerPair[Any]]:
    if attention.takes_codes or not _is_aligned(attention.to_q.in_features, attention.to_q.out_features):
        return
    weight = attention.together()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)

    def quantized(norm: nn.LayerNorm, layer: nn.Module) -> tuple[nn.Module, nn.Module]:
        gain = power_of_two_gain(norm_output_rms(norm, _SINES if alone else 0.0), _NORMED)
        return Float8LayerNorm(norm, gain), _quantize_linear(layer, gain)

    def install(norm: nn.Module, layer: nn.Module) -> None:
        setattr(norms, name, norm)
        attention.take_codes(cast("Float8Linear", layer), alone=alone)

    shape = (*given, weight.shape[1])
    yield _NormLayerPair(
        "self-attention", getattr(norms, name), plain, shape, _normed_product, quantized, install
    )


def _normed_product(operations: Operations, norm: nn.Module, layer: nn.Module, x: Tensor) -> object:
    return layer(operations.layer_norm(x, cast("nn.LayerNorm", norm), x).normed)


def _feed_forward_pairs(
    block: SpatialTransformerBlock | AttentionStack, norm: str, given: Given
) -> Iterator[_NormLayerPair[Any]]:
    plain = block.ff
    if not isinstance(plain, FeedForward) or not _is_aligned(plain.width):
        return

    def quantized(norm: nn.LayerNorm, layer: nn.Module) -> tuple[nn.Module, nn.Module]:
        gain = power_of_two_gain(norm_output_rms(norm), _NORMED)
        return Float8LayerNorm(norm, gain), Float8FeedForward(cast("FeedForward", layer), norm, gain)

    def run(operations: Operations, norm: nn.Module, layer: nn.Module, x: Tensor) -> object:
        network = cast("FeedForward", layer)
        both = operations.layer_norm(x, cast("nn.LayerNorm", norm), x, bias=network.residual_bias)
        return network.add_to(both.sum, both.normed)

    install = _make_setter(block, norm, block, "ff")
    shape = (*given, plain.width)
    yield _NormLayerPair("feed-forward", getattr(block, norm), plain, shape, run, quantized, install)


def _make_setter(
    norms: nn.Module, norm: str, layers: nn.Module, layer: str
) -> Callable[[nn.Module, nn.Module], None]:
    def install(its_norm: nn.Module, its_layer: nn.Module) -> None:
        setattr(norms, norm, its_norm)
        setattr(layers, layer, its_layer)

    return install


def _quantize_linear(layer: nn.Module, gain: float) -> Float8Linear:
    """Return the 8-bit version of a linear or a 1×1 convolution."""
    weight = cast("Tensor", layer.weight)
    return Float8Linear(weight.flatten(1), cast("Tensor | None", layer.bias), gain)


def _is_aligned(*widths: int) -> bool:
    return all(width % MULTIPLE == 0 for width in widths)
