from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from personalive.errors import InputError
from personalive.pipelines.personalive import quantization
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.networks.denoising_unet import DenoisingUNet, DenoisingUNetParams
from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters
from personalive.pipelines.personalive.pipeline import PersonaLivePipeline
from personalive.pipelines.personalive.quantization import Float8Linear, quantize


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
    x = torch.randn(2, 5, 64)
    ours = Float8Linear(linear)(x)
    assert (ours.shape, ours.dtype) == ((2, 5, 48), x.dtype)
    assert (ours - linear(x)).norm() / linear(x).norm() < 0.06


@pytest.mark.usefixtures("multiplying")
def test_the_large_linears_of_the_denoising_unet_are_quantized_once(models: Models) -> None:
    with torch.device("meta"):
        unet = DenoisingUNet(DenoisingUNetParams(block_out_channels=(320, 320), layers_per_block=1))
    own = replace(models, denoising_unet=unet)
    names = {name for name, module in unet.named_modules() if isinstance(module, nn.Linear)}
    quantize(own)
    eight = {name for name, module in unet.named_modules() if isinstance(module, Float8Linear)}
    plain = {name for name, module in unet.named_modules() if isinstance(module, nn.Linear)}
    assert eight | plain == names
    assert any(".temporal_modules." in name and name.endswith("to_q") for name in eight)
    assert any(name.endswith("ff.net.0.proj") for name in eight)
    # Motion tokens are narrow; times and the image embedding are constants of a session.
    assert all(".motion_modules." not in name for name in eight if name.endswith(("to_k", "to_v")))
    assert not any("time_emb" in name or "attn2." in name for name in eight)
    quantize(own)
    assert {name for name, module in unet.named_modules() if isinstance(module, Float8Linear)} == eight


def test_a_device_that_cannot_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("only on sm_89")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    with pytest.raises(InputError, match=r"dtype=float8 needs a GPU .* and cpu does not: take float16"):
        quantization.check(torch.device("cpu"))


@pytest.mark.usefixtures("multiplying")
def test_small_networks_have_nothing_to_quantize_and_run(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to.model_copy(update={"dtype": "float8"})) as own:
        assert own.parameters.dtype == "float8"
