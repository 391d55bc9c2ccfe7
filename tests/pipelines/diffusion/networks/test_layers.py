from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS, set_operations
from personalive.pipelines.diffusion.networks.layers import (
    GEGLU,
    Attention,
    AttentionStack,
    FeedForward,
    position_ids,
    sincos_encoding,
)
from tests.pipelines.diffusion.accumulating import Accumulating
from tests.pipelines.diffusion.figures import assert_near


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_attention_is_the_softmax_formula(batch: int, queries: int, keys: int, heads: int) -> None:
    random = torch.Generator().manual_seed(batch + 10 * queries + 100 * keys)
    width = 8
    query = torch.randn(batch, queries, width, generator=random)
    key, value = torch.randn(2, batch, keys, width, generator=random)
    parts = []
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        scores = query[..., own] @ key[..., own].mT / math.sqrt(width // heads)
        parts.append(scores.softmax(-1) @ value[..., own])
    assert_near(PLAIN_OPERATIONS.attention(query, key, value, heads), torch.cat(parts, -1))


def test_attention_projects_contexts_of_another_width() -> None:
    attention = Attention(8, 2, context_width=3)
    context = torch.randn(2, 5, 3)
    out = attention(torch.randn(2, 7, 8), attention.to_k(context), attention.to_v(context))
    assert out.shape == (2, 7, 8)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="10 channels do not divide into 4 heads"):
        Attention(10, 4)


def test_feed_forward_gates_the_first_half_by_the_second() -> None:
    layer = FeedForward(4)
    tokens = torch.randn(2, 3, 4)
    state = layer.state_dict()
    projected = tokens @ state["net.0.proj.weight"].T + state["net.0.proj.bias"]
    gate = projected[..., 16:]
    erf = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    expected = (projected[..., :16] * erf) @ state["net.2.weight"].T + state["net.2.bias"]
    assert_near(layer(tokens), expected)


@torch.no_grad()
@pytest.mark.parametrize("attentions", [0, 1])
def test_accumulating_changes_no_number_and_no_input(attentions: int) -> None:
    stack = AttentionStack(8, [Attention(8, 2) for _ in range(attentions)])
    tokens = torch.randn(2, 3, 8)
    before = tokens.clone()

    def attention(_: int, normed: torch.Tensor) -> torch.Tensor:
        return normed

    expected = stack(tokens, attention)
    set_operations(stack, Accumulating())
    assert_near(stack(tokens, attention), expected)
    assert torch.equal(tokens, before)


def test_pairing_values_and_gates_changes_no_number() -> None:
    gate = GEGLU(4, 6)
    tokens = torch.randn(2, 3, 4)
    expected, weight = gate(tokens), gate.proj.weight.clone()
    for _ in range(2):
        gate.interleave()
        assert torch.equal(gate.proj.weight[0::2], weight[:6])
        assert torch.equal(gate.proj.weight[1::2], weight[6:])
        assert_near(gate(tokens), expected)


def test_stack_adds_each_attention_and_the_feed_forward_to_its_input() -> None:
    stack = AttentionStack(4, [Attention(4, 1), Attention(4, 1)])
    tokens = torch.randn(1, 5, 4)
    seen = []

    def attention(index: int, normed: torch.Tensor) -> torch.Tensor:
        torch.testing.assert_close(normed.mean(-1), torch.zeros(1, 5), atol=1e-5, rtol=0)
        seen.append(index)
        return torch.full_like(normed, index + 1.0)

    raised = tokens + 1 + 2
    normed = F.layer_norm(raised, (4,))
    assert_near(stack(tokens, attention), raised + stack.ff(normed))
    assert seen == [0, 1]


def test_sines_and_cosines_of_geometric_frequencies() -> None:
    sine, cosine = sincos_encoding(torch.tensor([0.0, 7.0]), 3)
    for frequency in range(3):
        angle = 7 * 10000 ** (-frequency / 3)
        assert sine[1, frequency] == pytest.approx(math.sin(angle), abs=1e-5)
        assert cosine[1, frequency] == pytest.approx(math.cos(angle), abs=1e-5)
    assert sine[0].tolist() == [0, 0, 0]
    assert cosine[0].tolist() == [1, 1, 1]


def test_positions_are_real_even_while_networks_are_built_on_meta() -> None:
    with torch.device("meta"):
        assert position_ids(3).tolist() == [0, 1, 2]
