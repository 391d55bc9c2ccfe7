from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats
from personalive.pipelines.diffusion.networks.resnet import Downsample, ResnetBlock, Upsample
from tests.pipelines.diffusion.figures import assert_near


@pytest.mark.parametrize("out_channels", [8, 16])
def test_residual_block_is_its_formula(out_channels: int) -> None:
    block = ResnetBlock(8, out_channels, time_width=6, groups=4)
    x, embedding = torch.randn(3, 8, 5, 5), torch.randn(3, 6)
    feature = block.project_time(embedding)
    assert_near(feature, block.time_emb_proj(embedding * embedding.sigmoid()))
    normed = F.group_norm(x, 4, block.norm1.weight, block.norm1.bias, eps=1e-5)
    hidden = block.conv1(normed * normed.sigmoid()) + feature[:, :, None, None]
    normed = F.group_norm(hidden, 4, block.norm2.weight, block.norm2.bias, eps=1e-5)
    expected = block.conv_shortcut(x) + block.conv2(normed * normed.sigmoid())
    assert_near(block(TensorWithStats(x), feature).tensor, expected)


def test_shortcut_is_a_convolution_only_where_widths_differ() -> None:
    assert not any("shortcut" in name for name in ResnetBlock(8, 8, 6, 4).state_dict())
    assert ResnetBlock(8, 16, 6, 4).state_dict()["conv_shortcut.weight"].shape == (16, 8, 1, 1)


def test_frames_do_not_share_statistics() -> None:
    block = ResnetBlock(8, 8, 6, 4)
    x, feature = torch.randn(2, 8, 4, 4), torch.randn(2, 8)
    together = block(TensorWithStats(x), feature).tensor
    alone = block(TensorWithStats(x[:1]), feature[:1]).tensor
    assert_near(together[:1], alone)


def test_memory_stays_channels_last() -> None:
    block = ResnetBlock(8, 16, 6, 4)
    block = block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    out = block(TensorWithStats(x), torch.zeros(1, 16)).tensor
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_down_and_up_resampling() -> None:
    x = torch.randn(1, 4, 6, 8)
    down, up = Downsample(4), Upsample(4)
    assert down(x).shape == (1, 4, 3, 4)
    padded = F.pad(x, (1, 1, 1, 1))
    assert_near(down(x), F.conv2d(padded, down.conv.weight, down.conv.bias, stride=2))
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_near(up(x), up.conv(doubled))


def test_doubling_in_one_convolution_is_the_same() -> None:
    up = Upsample(4).requires_grad_(False)
    x = torch.randn(2, 4, 6, 5)
    apart = up(x)
    for _ in range(2):
        up.fuse_conv_transpose()
        assert [tuple(weight.shape) for weight in up.parameters()] == [(4, 4, 4, 4), (4,)]
        assert_near(up(x), apart)
