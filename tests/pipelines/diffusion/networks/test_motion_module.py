from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats
from personalive.pipelines.diffusion.networks.layers import Attention, AttentionStack
from personalive.pipelines.diffusion.networks.motion_module import (
    MotionModule,
    TemporalAttention,
    TemporalModule,
    TemporalPositionalEncoding,
)
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from tests.pipelines.diffusion.figures import assert_near

CHANNELS, HEADS, MOTION = 16, 4, 6


def enter(module: MotionModule | TemporalModule, x: Tensor) -> tuple[Tensor, AttentionStack]:
    """The tokens that the module's block gets, and the block."""
    inner = module.temporal_transformer
    normed = F.group_norm(x, 4, inner.norm.weight, inner.norm.bias, eps=1e-6)
    block = inner.transformer_blocks[0]
    assert isinstance(block, AttentionStack)
    return inner.proj_in(normed.flatten(2).mT), block


def leave(module: MotionModule | TemporalModule, x: Tensor, tokens: Tensor) -> Tensor:
    block = module.temporal_transformer.transformer_blocks[0]
    assert isinstance(block, AttentionStack)
    tokens = tokens + block.ff(block.ff_norm(tokens))
    out: Tensor = x + module.temporal_transformer.proj_out(tokens).mT.unflatten(2, x.shape[2:])
    return out


def test_motion_module_attends_from_each_pixel_to_its_frames_motion() -> None:
    module = MotionModule(CHANNELS, HEADS, MOTION, groups=4)
    x, motion = torch.randn(3, CHANNELS, 4, 5), torch.randn(3, 7, MOTION)
    tokens, block = enter(module, x)
    pairs = []
    for norm, attention in zip(block.norms, block.attention_blocks, strict=True):
        assert isinstance(attention, Attention)
        pairs.append(KeyValue(attention.to_k(motion), attention.to_v(motion)))
        tokens = tokens + attention(norm(tokens), *pairs[-1])
    assert_near(module(TensorWithStats(x), pairs).tensor, leave(module, x, tokens))


@pytest.mark.parametrize("sessions", [1, 2])
def test_temporal_module_attends_along_time_at_each_pixel(sessions: int) -> None:
    frames, height, width = 5, 3, 2
    module = TemporalModule(CHANNELS, HEADS, length=8, groups=4)
    x = torch.randn(sessions * frames, CHANNELS, height, width)
    tokens, block = enter(module, x)
    for norm, attention in zip(block.norms, block.attention_blocks, strict=True):
        assert isinstance(attention, TemporalAttention)
        normed = norm(tokens)
        out = torch.empty_like(tokens)
        for session in range(sessions):
            for pixel in range(height * width):
                own = slice(session * frames, (session + 1) * frames)
                track = normed[own, pixel][None] + attention.pos_encoder.pe[:, :frames]
                out[own, pixel] = attention(track, attention.to_k(track), attention.to_v(track))[0]
        tokens = tokens + out
    assert_near(module(TensorWithStats(x), frames).tensor, leave(module, x, tokens))


def test_sessions_in_a_batch_do_not_see_each_other() -> None:
    module = TemporalModule(CHANNELS, HEADS, length=8, groups=4)
    x = torch.randn(2 * 4, CHANNELS, 2, 2)
    together, alone = (module(TensorWithStats(each), 4).tensor for each in (x, x[:4]))
    assert_near(together[:4], alone)


def test_positions_alternate_sine_and_cosine() -> None:
    code = TemporalPositionalEncoding(8, 32).pe
    assert code.shape == (1, 32, 8)
    for pair in range(4):
        angle = 31 * 10000 ** (-2 * pair / 8)
        assert code[0, 31, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert code[0, 31, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
