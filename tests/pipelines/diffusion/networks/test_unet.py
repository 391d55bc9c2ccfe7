from __future__ import annotations

import math

import pytest
import torch

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats
from personalive.pipelines.diffusion.networks.unet import TimeEmbedding, UNet, UNetParams
from tests.pipelines.diffusion.figures import assert_near

SMALL = UNetParams(block_out_channels=(8, 16, 16), cross_attention_width=6, heads=4, norm_groups=4)


@pytest.fixture(scope="module")
def trunk() -> UNet:
    torch.manual_seed(0)
    return UNet(SMALL).requires_grad_(False)


def test_released_sizes_have_the_layers_of_stable_diffusion() -> None:
    with torch.device("meta"):
        trunk = UNet(UNetParams())
    assert len(trunk.layers) == 22
    assert sum(layer.attention is not None for layer in trunk.layers) == 16
    assert [layer.bank for layer in trunk.layers if layer.attention] == list(range(16))


def test_layers_run_in_order_and_see_their_skips(trunk: UNet) -> None:
    seen: list[tuple[int, int, int]] = []

    def run(number: int, x: TensorWithStats) -> TensorWithStats:
        resnet, shape = trunk.layers[number].resnet, x.tensor.shape
        assert shape[1] == resnet.norm1.num_channels
        seen.append((number, shape[2], shape[3]))
        return TensorWithStats(torch.zeros(shape[0], resnet.norm2.num_channels, *shape[2:]))

    out = trunk.run_layers(torch.zeros(1, 8, 16, 8), run).tensor
    assert out.shape == (1, 8, 16, 8)
    heights = [16, 16, 8, 8, 4, 4, 4, 4, 4, 4, 4, 8, 8, 8, 16, 16, 16]
    assert seen == [(number, height, height // 2) for number, height in enumerate(heights)]


def test_time_embedding_has_cosines_first() -> None:
    embedding = TimeEmbedding(6, 24)
    timestep = 333
    angles = [timestep * 10000 ** (-i / 3) for i in range(3)]
    code = torch.tensor([[*map(math.cos, angles), *map(math.sin, angles)]])
    hidden = embedding.linear_1(code)
    expected = embedding.linear_2(hidden * hidden.sigmoid())
    torch.testing.assert_close(embedding(torch.tensor([timestep])), expected, atol=1e-5, rtol=1e-4)


def test_time_features_are_one_per_layer_and_timestep(trunk: UNet) -> None:
    timesteps = torch.tensor([0, 333, 333, 999])
    features = trunk.compute_time_features(timesteps)
    assert [tuple(feature.shape) for feature in features] == [
        (4, layer.resnet.norm2.num_channels) for layer in trunk.layers
    ]
    embedding = trunk.time_embedding(timesteps[1:2])
    for layer, feature in zip(trunk.layers, features, strict=True):
        assert_near(feature[2:3], layer.resnet.project_time(embedding))


def test_cross_constants_need_one_token(trunk: UNet) -> None:
    assert len(trunk.compute_cross_constants(torch.zeros(2, 1, 6))) == len(
        [layer for layer in trunk.layers if layer.attention]
    )
    with pytest.raises(ValueError, match="one token"):
        trunk.compute_cross_constants(torch.zeros(2, 3, 6))


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="30 channels do not divide into 32 groups"):
        UNetParams(block_out_channels=(30, 64))
