"""Operations in their fastest form, whichever that is said to be: the same numbers, and the same layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from personalive.pipelines.diffusion.kernels.autotuned_ops import AutotunedOperations
from personalive.pipelines.diffusion.kernels.choice_cache import KernelChoiceCache
from personalive.pipelines.diffusion.kernels.operations import (
    PLAIN_OPERATIONS,
    Kernels,
    Operations,
    TensorWithStats,
)
from personalive.pipelines.diffusion.kernels.selector import PYTORCH, KernelSelector

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

KERNELS = INTERPRETED or torch.cuda.is_available()
"""Ours are chosen between, too."""
EXAMPLES = 1 if INTERPRETED else 5


class Fused(Operations):
    """PyTorch's, with another gated product: what is chosen between without a GPU."""

    fuses_residual_matmul = True

    def linear_geglu_kernels(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Kernels[Tensor]:
        return {"pointers": partial(PLAIN_OPERATIONS.linear_geglu, tokens, weight, bias)}


class Preferring:
    """Says that this form is faster than the others, wherever it is offered."""

    def __init__(self, form: str) -> None:
        self.form = form

    def measure(self, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        return {name: 1.0 if name == self.form else 2.0 for name in calls}


def measuring(form: str, **options: Any) -> AutotunedOperations:
    fused: Operations = Fused()
    if KERNELS:
        from personalive.pipelines.diffusion.kernels.triton_ops import TritonOperations

        fused = TritonOperations()
    return AutotunedOperations(
        fused,
        KernelSelector(Preferring(form), KernelChoiceCache(), lambda: False),
        **options,
    )


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE)


def close(ours: Any, exact: Any) -> None:
    for one, other in zip(
        *((each,) if isinstance(each, Tensor) else each for each in (ours, exact)), strict=True
    ):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["fused", PYTORCH])
@settings(max_examples=EXAMPLES, deadline=None)
@given(channels=st.sampled_from([32, 64]), side=st.integers(2, 6), count=st.integers(1, 3))
def test_pictures(form: str, channels: int, side: int, count: int) -> None:
    own = measuring(form)
    norm = nn.GroupNorm(32, channels).to(DEVICE).requires_grad_(False)
    batch = nn.BatchNorm2d(channels).eval().to(DEVICE).requires_grad_(False)
    layer = nn.Conv2d(channels, 8, 3, padding=1).to(DEVICE).requires_grad_(False)
    x, update = random(count, channels, side, side), random(count, channels, side, side)
    bias, shift = random(channels), random(count, channels)
    with torch.no_grad():
        summed, plain = (each.add_with_stats(x, update, bias) for each in (own, PLAIN_OPERATIONS))
        results = [
            (summed.tensor, plain.tensor),
            (own.group_norm(summed, norm, silu=True, shift=shift),
             PLAIN_OPERATIONS.group_norm(plain, norm, silu=True, shift=shift)),
            (own.batch_norm_relu(x, batch), PLAIN_OPERATIONS.batch_norm_relu(x, batch)),
        ]  # fmt: skip
        close(own.conv_relu(x, layer), PLAIN_OPERATIONS.conv_relu(x, layer))
        assert own.add_with_stats(x, None).tensor is x
    for ours, exact in results:
        close(ours, exact)
        if form == PYTORCH or KERNELS:
            assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("form", ["fused", PYTORCH])
@settings(max_examples=EXAMPLES, deadline=None)
@given(length=st.integers(1, 9), frames=st.integers(1, 4), sessions=st.integers(1, 2))
def test_tokens(form: str, length: int, frames: int, sessions: int) -> None:
    own = measuring(form)
    norm = nn.LayerNorm(64).to(DEVICE).requires_grad_(False)
    tokens, shared = random(sessions * frames, length, 64), random(sessions, 3, 64)
    apart = tokens.unflatten(0, (sessions, frames))
    with torch.no_grad():
        close(own.concat_kv(tokens, shared), PLAIN_OPERATIONS.concat_kv(tokens, shared))
        added = (tokens, shared[:, :1], random(frames, 64), random(64))
        close(own.layer_norm(tokens, norm, *added), PLAIN_OPERATIONS.layer_norm(tokens, norm, *added))
        close(own.geglu(tokens), PLAIN_OPERATIONS.geglu(tokens))
        close(own.add_matmul(tokens.clone(), tokens, torch.eye(64, device=DEVICE)), 2 * tokens)
        close(
            own.temporal_attention(apart, apart, apart, 2),
            PLAIN_OPERATIONS.temporal_attention(apart, apart, apart, 2),
        )
        close(
            own.single_head_attention(tokens, tokens, tokens),
            PLAIN_OPERATIONS.single_head_attention(tokens, tokens, tokens),
        )


@pytest.mark.parametrize("form", ["flash", "efficient", "cudnn", PYTORCH])
def test_attention_is_the_same_by_whichever_kernel(form: str) -> None:
    own = measuring(form)
    query, key = random(2, 5, 64), random(2, 9, 64)
    close(own.attention(query, key, key, 4), PLAIN_OPERATIONS.attention(query, key, key, 4))


def test_where_another_kernel_is_asked_for_attention_is_not_measured() -> None:
    own = measuring("flash", backends=())
    query = random(2, 5, 64)
    close(own.attention(query, query, query, 4), PLAIN_OPERATIONS.attention(query, query, query, 4))
    assert not own.selector.cache


def test_gates_are_paired_where_the_product_is_faster() -> None:
    linear = nn.Linear(64, 128).to(DEVICE).half().requires_grad_(False)
    forms = ("descriptors", "pointers", PYTORCH)
    assert {
        form: measuring(form).prefers_interleaved(30, linear) for form in forms if form != "descriptors"
    } == {
        "pointers": True,
        PYTORCH: False,
    }
    tokens = random(1, 7, 64).half()
    for form in forms:
        ours = measuring(form).linear_geglu(tokens, linear.weight, linear.bias)
        close(ours, PLAIN_OPERATIONS.linear_geglu(tokens, linear.weight, linear.bias))


def test_a_norm_that_finds_its_sums_is_chosen_apart_from_one_that_must_count() -> None:
    own = measuring(PYTORCH)
    norm = nn.GroupNorm(4, 8).to(DEVICE).requires_grad_(False)
    x = random(1, 8, 4, 4)
    own.group_norm(TensorWithStats(x), norm)
    own.group_norm(TensorWithStats(x, random(3, 1, 1, 8)), norm)
    assert len(own.selector.cache) == 2


@pytest.mark.slow
def test_a_tracer_follows_what_is_not_measured_there() -> None:
    own = measuring("fused")
    norm = nn.GroupNorm(4, 16).to(DEVICE).requires_grad_(False)
    weight, bias = random(64, 16), random(64)

    def run(x: Tensor) -> Tensor:
        normed = own.group_norm(own.add_with_stats(x, x), norm, silu=True)
        tokens = normed.flatten(2).transpose(1, 2)
        attended = own.attention(tokens, tokens, tokens, 2)
        return own.linear_geglu(own.single_head_attention(attended, tokens, tokens), weight, bias)

    x = random(2, 16, 4, 4)
    traced = torch.compile(run, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        close(traced(x), run(x))
