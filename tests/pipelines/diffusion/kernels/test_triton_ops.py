"""What only Triton's operations have to answer for; what they compute is in test_operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS, TensorWithStats

if TYPE_CHECKING:
    from tests.pipelines.diffusion.kernels.conftest import Way

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("way", ["triton"], indirect=True)]


def test_results_of_group_norm_lie_channels_last(way: Way) -> None:
    norm = nn.GroupNorm(4, 16, device=way.device)
    x = torch.randn(2, 16, 5, 6, device=way.device)
    with torch.no_grad():
        ours = way.operations.group_norm(TensorWithStats(x), norm)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_what_a_kernel_cannot_do_is_left_to_pytorch(way: Way) -> None:
    tokens = torch.randn(1, 40, 3, 16, device=way.device)
    ours = way.operations.temporal_attention(tokens, tokens, tokens, 2)
    assert torch.equal(ours, PLAIN_OPERATIONS.temporal_attention(tokens, tokens, tokens, 2))
    bare = nn.GroupNorm(2, 4, affine=False)
    x = torch.randn(1, 4, 2, 2, device=way.device)
    assert torch.equal(
        way.operations.group_norm(TensorWithStats(x), bare),
        PLAIN_OPERATIONS.group_norm(TensorWithStats(x), bare),
    )


def test_kernels_tell_a_tracer_their_results_shape_and_layout(way: Way) -> None:
    norm = nn.GroupNorm(4, 16, device=way.device).requires_grad_(False)
    x = torch.randn(2, 16, 4, 4, device=way.device)

    def run(given: torch.Tensor) -> torch.Tensor:
        return way.operations.group_norm(way.operations.add_with_stats(given, given), norm, silu=True)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x))


@pytest.mark.slow
def test_a_tracer_follows_what_is_added_to_and_what_is_multiplied(way: Way) -> None:
    norm = nn.LayerNorm(512, device=way.device, dtype=torch.float16).requires_grad_(False)
    bias, weight = (torch.randn(*shape, device=way.device).half() / 20 for shape in ((512,), (512, 512)))
    x = torch.randn(2, 9, 512, device=way.device).half()

    def run(given: torch.Tensor) -> torch.Tensor:
        total, normed = way.operations.layer_norm(given, norm, given, bias=bias)
        attended = way.operations.single_head_attention(normed, normed, normed)
        apart = way.operations.temporal_attention(attended[None], attended[None], attended[None], 16)[0]
        return way.operations.add_matmul(total, apart, weight)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x), rtol=1e-2, atol=1e-2)
