"""The decoder of Stable Diffusion's autoencoder: latents → a picture.

It computes what the library's `AutoencoderKL.decode` does and has the library's entry names, so that it takes over
the library's weights without a copy. It is here because more than half of the time of decoding goes into norms,
which `kernels` does in fewer passes over memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from personalive.pipelines.personalive.kernels.operations import Fusable, Summed
from personalive.pipelines.personalive.networks.layers import attend
from personalive.pipelines.personalive.networks.resnet import ResnetBlock, Upsample

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class VaeDecoderParams:
    """Sizes of the decoder; the defaults are those of Stable Diffusion 1.x.

    `block_out_channels` from the picture's own size downward, the size halving between them.
    """

    latent_channels: int = 4
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32


class MiddleAttention(Fusable):
    """Group norm, self-attention of all pixels in one head, plus the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → the same shape."""
        return self.onward(Summed(x)).picture

    def onward(self, x: Summed) -> Summed:
        """The same, between blocks that take down each other's sums."""
        tokens = self.operations.group_norm(x, self.group_norm).flatten(2).transpose(1, 2)
        attended = attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), heads=1)
        update = self.to_out[0](attended).transpose(1, 2).unflatten(2, x.picture.shape[2:])
        return self.operations.add(x.picture, update)


class _Level(nn.Module):
    """The residual blocks of one size; on all but the last, what doubles it."""

    def __init__(self, resnets: list[ResnetBlock], channels: int, *, upsample: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.upsamplers = nn.ModuleList([Upsample(channels)] if upsample else [])


class _Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, None, groups, EPS) for _ in range(2))
        self.attentions = nn.ModuleList([MiddleAttention(channels, groups)])


class VaeDecoder(Fusable):
    """The decoder, with the convolution that comes before it."""

    def __init__(self, params: VaeDecoderParams) -> None:
        super().__init__()
        widths = params.block_out_channels[::-1]
        self.post_quant_conv = nn.Conv2d(params.latent_channels, params.latent_channels, 1)
        self.conv_in = nn.Conv2d(params.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _Middle(widths[0], params.norm_groups)
        self.up_blocks = nn.ModuleList(_levels(params))
        self.conv_norm_out = nn.GroupNorm(params.norm_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], params.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (N, latent_channels, h, w), already unscaled → pictures (N, 3, 8h, 8w), about [-1, 1]."""
        first, last = (cast("ResnetBlock", block) for block in self.mid_block.resnets)
        attention = cast("MiddleAttention", self.mid_block.attentions[0])
        x = first.onward(Summed(self.conv_in(self.post_quant_conv(latents))))
        x = last.onward(attention.onward(x))
        for level in self.up_blocks:
            for resnet in cast("_Level", level).resnets:
                x = cast("ResnetBlock", resnet).onward(x)
            for upsample in cast("_Level", level).upsamplers:
                x = cast("Upsample", upsample).onward(x.picture)
        out: Tensor = self.conv_out(self.operations.group_norm(x, self.conv_norm_out, silu=True))
        return out

    @classmethod
    def of(cls, vae: Any) -> Self | None:
        """The decoder of a library's `AutoencoderKL`, sharing its weights; None where it is of another kind."""
        config = vae.config
        with torch.device("meta"):
            own = cls(
                VaeDecoderParams(
                    latent_channels=config.latent_channels,
                    out_channels=config.out_channels,
                    block_out_channels=tuple(config.block_out_channels),
                    layers_per_block=config.layers_per_block,
                    norm_groups=config.norm_num_groups,
                )
            )
        state = {
            name.removeprefix("decoder."): tensor
            for name, tensor in vae.state_dict().items()
            if name.startswith(("decoder.", "post_quant_conv."))
        }
        fitting = {name: tensor.shape for name, tensor in own.state_dict().items()}
        if config.act_fn != "silu" or {name: tensor.shape for name, tensor in state.items()} != fitting:
            return None
        own.load_state_dict(state, assign=True)
        return own.requires_grad_(False).eval()


def _levels(params: VaeDecoderParams) -> Iterator[_Level]:
    before = params.block_out_channels[-1]
    for number, channels in enumerate(params.block_out_channels[::-1]):
        incoming = [before] + [channels] * params.layers_per_block
        resnets = [ResnetBlock(width, channels, None, params.norm_groups, EPS) for width in incoming]
        yield _Level(resnets, channels, upsample=number < len(params.block_out_channels) - 1)
        before = channels
