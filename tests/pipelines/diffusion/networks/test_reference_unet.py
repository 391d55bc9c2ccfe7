from __future__ import annotations

import pytest
import torch
from torch import Tensor

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.unet import UNetParams
from tests.pipelines.diffusion.figures import assert_near, entries, filled, released_entries

SMALL = UNetParams(block_out_channels=(32, 64, 64), cross_attention_width=6)


@pytest.fixture(scope="module")
def unet() -> ReferenceUNet:
    return filled(lambda: ReferenceUNet(SMALL), "small/reference_unet")


def test_entries_are_those_of_the_released_file() -> None:
    with torch.device("meta"):
        assert entries(ReferenceUNet(UNetParams())) == released_entries()["reference_unet"]


def test_banks_are_what_enters_self_attention_of_a_full_run(unet: ReferenceUNet) -> None:
    latents, context = torch.randn(1, 4, 8, 8), torch.randn(1, 1, 6)
    cross = unet.compute_cross_constants(context)
    time = unet.compute_time_features(torch.zeros(1))
    expected: list[Tensor] = []

    def run(number: int, x: TensorWithStats) -> TensorWithStats:
        layer = unet.layers[number]
        x = layer.resnet(x, time[number])
        if layer.attention is not None:
            expected.append(layer.attention.block.norm1(layer.attention.project_in(x)))
            x = layer.attention(x, cross[layer.bank])
        return x

    unet.run_layers(unet.conv_in(latents), run)
    banks = unet(latents, cross)
    assert [bank.shape[1] for bank in banks] == [64, 64, 16, 16, 4, 16, 16, 16, 64, 64, 64]
    for bank, other in zip(banks, expected, strict=True):
        assert_near(bank, other)


def test_references_in_a_batch_do_not_see_each_other(unet: ReferenceUNet) -> None:
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(2, 1, 6)
    together = unet(latents, unet.compute_cross_constants(context))
    alone = unet(latents[1:], unet.compute_cross_constants(context[1:]))
    for both, one in zip(together, alone, strict=True):
        assert_near(both[1:], one)
