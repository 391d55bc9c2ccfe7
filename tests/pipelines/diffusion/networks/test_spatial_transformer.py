from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats, set_operations
from personalive.pipelines.diffusion.networks import spatial_transformer
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue, SpatialTransformer
from tests.pipelines.diffusion.accumulating import Accumulating
from tests.pipelines.diffusion.figures import assert_near

CHANNELS, CONTEXT, HEADS = 16, 6, 4


@pytest.fixture
def transformer() -> SpatialTransformer:
    torch.manual_seed(0)
    return SpatialTransformer(CHANNELS, HEADS, CONTEXT, groups=4)


def plain(transformer: SpatialTransformer, x: Tensor, context: Tensor, banks: list[Tensor]) -> Tensor:
    """The layer of one frame x without shortcuts: banks projected with its own tokens, real cross-attention."""
    normed = F.group_norm(x, 4, transformer.norm.weight, transformer.norm.bias, eps=1e-6)
    tokens = transformer.proj_in(normed).flatten(2).mT
    block = transformer.block
    own = block.norm1(tokens)
    seen = torch.cat([own, *banks], dim=1)
    tokens = tokens + block.attn1(own, block.attn1.to_k(seen), block.attn1.to_v(seen))
    queries = block.norm2(tokens)
    tokens = tokens + block.attn2(queries, block.attn2.to_k(context), block.attn2.to_v(context))
    tokens = tokens + block.ff(block.norm3(tokens))
    out: Tensor = x + transformer.proj_out(tokens.mT.unflatten(2, x.shape[2:]))
    return out


@pytest.mark.parametrize("keyframes", [0, 1, 3])
def test_projected_banks_and_constant_cross_attention_give_the_plain_formula(
    transformer: SpatialTransformer, keyframes: int
) -> None:
    sessions, frames = 2, 3
    x = torch.randn(sessions * frames, CHANNELS, 4, 6)
    context = torch.randn(sessions, 1, CONTEXT)
    banks = [torch.randn(sessions, 24, CHANNELS) for _ in range(1 + keyframes)]
    pairs = [transformer.project_bank(bank) for bank in banks]
    shared = KeyValue(
        torch.cat([pair.key for pair in pairs], 1), torch.cat([pair.value for pair in pairs], 1)
    )
    ours = transformer(TensorWithStats(x), transformer.cross_constant(context), shared).tensor
    for index in range(sessions * frames):
        session = index // frames
        own = slice(session, session + 1)
        expected = plain(transformer, x[index : index + 1], context[own], [bank[own] for bank in banks])
        assert_near(ours[index : index + 1], expected)


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_keys_joined_for_some_frames_at_a_time_give_the_same(
    transformer: SpatialTransformer, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    sessions, frames, pixels = 2, 5, 16
    x, cross = torch.randn(sessions * frames, CHANNELS, 4, 4), torch.randn(sessions, 1, CHANNELS)
    shared = transformer.project_bank(torch.randn(sessions, 3 * pixels, CHANNELS))
    expected = transformer(TensorWithStats(x), cross, shared).tensor
    monkeypatch.setattr(spatial_transformer, "_MAX_JOINED_ELEMENTS", most * 4 * pixels * CHANNELS)
    assert_near(transformer(TensorWithStats(x), cross, shared).tensor, expected)


def test_without_banks_a_frame_sees_itself(transformer: SpatialTransformer) -> None:
    x, context = torch.randn(1, CHANNELS, 4, 4), torch.randn(1, 1, CONTEXT)
    ours = transformer(TensorWithStats(x), transformer.cross_constant(context)).tensor
    assert_near(ours, plain(transformer, x, context, []))


def test_bank_is_what_enters_self_attention(transformer: SpatialTransformer) -> None:
    tokens = transformer.project_in(TensorWithStats(torch.randn(1, CHANNELS, 4, 4)))
    assert_near(transformer.compute_bank(tokens), transformer.block.norm1(tokens))


def test_channels_last_gives_the_same_numbers(transformer: SpatialTransformer) -> None:
    x, cross = torch.randn(2, CHANNELS, 4, 4), torch.randn(1, 1, CHANNELS)
    expected = transformer(TensorWithStats(x), cross).tensor
    transformer = transformer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = x.to(memory_format=torch.channels_last)
    assert_near(transformer(TensorWithStats(x), cross).tensor, expected)


@torch.no_grad()
def test_accumulating_changes_no_number_and_no_input(transformer: SpatialTransformer) -> None:
    tokens, cross = torch.randn(2, 9, CHANNELS), torch.randn(1, 1, CHANNELS)
    before, normed = tokens.clone(), transformer.compute_bank(tokens)
    expected = transformer.block(tokens, normed, cross, None)
    set_operations(transformer, Accumulating())
    assert_near(transformer.block(tokens, normed, cross, None), expected)
    assert torch.equal(tokens, before)
