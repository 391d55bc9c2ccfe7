"""Stable Diffusion's autoencoder: it encodes a picture to latents of an eighth of its size, and decodes them.

Rombach et al., 2022, https://arxiv.org/abs/2112.10752. The encoder's variance is not used: the method takes the
mean. More than half of the decoding time is spent in norms, which `kernels` computes in fewer passes over memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import OperationsModule, TensorWithStats
from personalive.pipelines.diffusion.networks.resnet import ResnetBlock, Upsample

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class AutoencoderParams:
    """Sizes of the autoencoder; the defaults are those of Stable Diffusion 1.x.

    `block_out_channels` go from the picture's size downward, the size halving between them. The UNets' latents are
    the encoder's times `scale`.
    """

    latent_channels: int = 4
    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scale: float = 0.18215


class MidBlockAttention(OperationsModule):
    """Group norm, self-attention of all pixels in one head, plus the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: TensorWithStats) -> TensorWithStats:
        """Map (N, C, h, w) with its group-norm statistics to the same shape, with statistics."""
        tokens = self.operations.group_norm(x, self.group_norm).flatten(2).transpose(1, 2)
        attended = self.operations.single_head_attention(
            self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        )
        update = self.to_out[0](attended).transpose(1, 2).unflatten(2, x.tensor.shape[2:])
        return self.operations.add_with_stats(x.tensor, update)


class _MidBlock(nn.Module):
    """The middle block, at the smallest size: a residual block, attention, and another residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, None, groups, EPS) for _ in range(2))
        self.attentions = nn.ModuleList([MidBlockAttention(channels, groups)])

    def forward(self, x: TensorWithStats) -> TensorWithStats:
        first, last = self.resnets
        out: TensorWithStats = last(self.attentions[0](first(x)))
        return out


class _Downsample(nn.Module):
    """Downsampling by 2: a 3×3 convolution with stride 2, padded on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> TensorWithStats:
        return TensorWithStats(self.conv(F.pad(x, (0, 1, 0, 1))))


class _ResolutionBlock(nn.Module):
    """The residual blocks of one size, and the resampling to the next: down in an encoder, up in a decoder."""

    def __init__(self, widths: tuple[int, ...], groups: int, resample: _Downsample | Upsample | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(before, after, None, groups, EPS) for before, after in itertools.pairwise(widths)
        )
        self.downsamplers = nn.ModuleList([resample] if isinstance(resample, _Downsample) else [])
        self.upsamplers = nn.ModuleList([resample] if isinstance(resample, Upsample) else [])

    def forward(self, x: TensorWithStats) -> TensorWithStats:
        for resnet in self.resnets:
            x = resnet(x)
        for resample in (*self.downsamplers, *self.upsamplers):
            enlarges = isinstance(resample, Upsample)
            x = resample.forward_with_stats(x.tensor) if enlarges else resample(x.tensor)
        return x


class Encoder(OperationsModule):
    """The encoder: it maps a picture to mean and variance of its latents, before the last convolution."""

    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        widths = params.block_out_channels
        self.conv_in = nn.Conv2d(params.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _build_blocks(widths, params.layers_per_block, params.norm_groups, _Downsample)
        )
        self.mid_block = _MidBlock(widths[-1], params.norm_groups)
        self.conv_norm_out = nn.GroupNorm(params.norm_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * params.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pictures (N, 3, H, W) in [-1, 1] to (N, 2 · latent_channels, H/8, W/8)."""
        x = TensorWithStats(self.conv_in(pixels))
        for level in self.down_blocks:
            x = level(x)
        out: Tensor = self.conv_out(
            self.operations.group_norm(self.mid_block(x), self.conv_norm_out, silu=True)
        )
        return out


class Decoder(OperationsModule):
    """The decoder: it maps latents, after the first convolution, to a picture."""

    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        widths = params.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(params.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _MidBlock(widths[0], params.norm_groups)
        blocks = params.layers_per_block + 1
        self.up_blocks = nn.ModuleList(_build_blocks(widths, blocks, params.norm_groups, Upsample))
        self.conv_norm_out = nn.GroupNorm(params.norm_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], params.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (N, latent_channels, h, w) to pictures (N, 3, 8h, 8w), about [-1, 1]."""
        x = self.mid_block(TensorWithStats(self.conv_in(latents)))
        for level in self.up_blocks:
            x = level(x)
        out: Tensor = self.conv_out(self.operations.group_norm(x, self.conv_norm_out, silu=True))
        return out


class Autoencoder(nn.Module):
    """Encoder and decoder, each with a 1×1 convolution next to the latents."""

    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        self.params = params
        channels = params.latent_channels
        self.encoder = Encoder(params)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        self.decoder = Decoder(params)

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pictures (N, 3, H, W) in [-1, 1] to scaled means of latents (N, latent_channels, H/8, W/8).

        The input may have any floating type; computation and result have that of the encoder's weights.
        """
        mean, _ = self.quant_conv(self.encoder(pixels.to(self.quant_conv.weight))).chunk(2, dim=1)
        scaled: Tensor = mean * self.params.scale
        return scaled

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (N, latent_channels, h, w) to pictures (N, 3, 8h, 8w), about [-1, 1].

        The input may have any floating type; computation and result have that of the decoder's weights.
        """
        unscaled = (latents / self.params.scale).to(self.post_quant_conv.weight)
        picture: Tensor = self.decoder(self.post_quant_conv(unscaled))
        return picture


def _build_blocks(
    widths: tuple[int, ...], layers: int, groups: int, resample: Callable[[int], _Downsample | Upsample]
) -> Iterator[_ResolutionBlock]:
    """Build the blocks of each size, `layers` residual blocks each, in the order they are run."""
    before = widths[0]
    for number, channels in enumerate(widths, start=1):
        onward = resample(channels) if number < len(widths) else None
        yield _ResolutionBlock((before, *[channels] * layers), groups, onward)
        before = channels
