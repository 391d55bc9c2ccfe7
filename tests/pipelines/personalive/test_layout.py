from __future__ import annotations

from typing import Any

import torch

from personalive.pipelines.personalive.engine import Engine
from personalive.pipelines.personalive.kernels.operations import PLAIN, Fusable, PlainOperations
from personalive.pipelines.personalive.layout import lay_out
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters


def operations(models: Models) -> set[Any]:
    modules = (module for network in models.networks().values() for module in network.modules())
    return {module.operations for module in modules if isinstance(module, Fusable)}


def test_with_fused_operations_convolutions_lie_channels_last(models: Models) -> None:
    fused = PlainOperations()
    weight = models.denoising_unet.conv_in.weight
    before = weight.clone()
    lay_out(models, fused)
    try:
        assert operations(models) == {fused}
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(weight, before)
    finally:
        for network in models.networks().values():
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        lay_out(models, PLAIN)
    assert operations(models) == {PLAIN}


def test_without_a_gpu_and_on_request_operations_are_pytorchs(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    for kernels in ("auto", "pytorch"):
        Engine(models, set_to.model_copy(update={"kernels": kernels}))
        assert operations(models) == {PLAIN}
