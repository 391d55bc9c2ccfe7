from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import nn

from personalive.errors import InputError
from personalive.pipelines.personalive.kernels.operations import PLAIN
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.networks.denoising_unet import DenoisingUNet, DenoisingUNetParams
from personalive.pipelines.personalive.networks.layers import FeedForward, GatedProjection
from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters
from personalive.pipelines.personalive.pipeline import PersonaLivePipeline
from personalive.pipelines.personalive.speed import quantization
from personalive.pipelines.personalive.speed.quantization import Float8FeedForward, Float8Linear, quantize


def multiplied(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None = None,
    **_: object,
) -> torch.Tensor:
    """What the device does, in float32."""
    product = (a.float() * scale_a) @ (b.float() * scale_b)
    return (product if bias is None else product + bias.float()).bfloat16()


@pytest.fixture
def multiplying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that multiplies 8-bit floats."""
    monkeypatch.setattr(torch, "_scaled_mm", multiplied)


@pytest.mark.usefixtures("multiplying")
@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_in_8_bits_stays_near_the_exact_one(bias: bool) -> None:
    linear = nn.Linear(64, 48, bias=bias).requires_grad_(False)
    x = torch.randn(10, 64)
    ours = Float8Linear(linear)(*PLAIN.quantized(x))
    assert (ours.shape, ours.dtype) == ((10, 48), torch.bfloat16)
    assert (ours - linear(x)).norm() / linear(x).norm() < 0.06


@pytest.mark.usefixtures("multiplying")
def test_a_feed_forward_in_8_bits_stays_near_the_exact_one() -> None:
    plain = FeedForward(64).requires_grad_(False)
    x = torch.randn(2, 5, 64)
    ours = Float8FeedForward(plain)(x)
    assert (ours.shape, ours.dtype) == (x.shape, torch.bfloat16)
    assert (ours - plain(x)).norm() / plain(x).norm() < 0.08
    total = torch.ones_like(x)
    added = Float8FeedForward(plain).onto(total, x)
    assert added.dtype == x.dtype
    torch.testing.assert_close(added, 1 + ours.to(x.dtype))
    assert torch.equal(total, torch.ones_like(x))
    cast("GatedProjection", plain.net[0]).pair()
    assert torch.equal(Float8FeedForward(plain)(x), ours)


@pytest.mark.slow
@pytest.mark.usefixtures("multiplying")
def test_the_large_feed_forwards_of_the_denoising_unet_are_quantized_once(models: Models) -> None:
    with torch.device("meta"):
        unet = DenoisingUNet(DenoisingUNetParams(block_out_channels=(1280, 1280), layers_per_block=1))
    own = replace(models, denoising_unet=unet)
    names = {name for name, module in unet.named_modules() if isinstance(module, FeedForward)}
    assert any(".temporal_modules." in name for name in names)
    quantize(own)
    eight = {name: module for name, module in unet.named_modules() if isinstance(module, Float8FeedForward)}
    assert set(eight) == names
    quantize(own)
    assert all(unet.get_submodule(name) is module for name, module in eight.items())


def test_a_device_that_cannot_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("only on sm_89")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    with pytest.raises(InputError, match=r"dtype=float8 needs a GPU .* and cpu does not: take float16"):
        quantization.check(torch.device("cpu"))


def test_a_gpu_below_the_capability_is_refused_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    with pytest.raises(InputError, match=r"compute capability 8\.9"):
        quantization.check(torch.device("cuda"))


@pytest.mark.usefixtures("multiplying")
def test_small_networks_have_nothing_to_quantize_and_run(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to.model_copy(update={"dtype": "float8"})) as own:
        assert own.parameters.dtype == "float8"
