from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.kernels.operations import (
    PLAIN_OPERATIONS,
    Operations,
    OperationsModule,
)
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNetParams
from personalive.pipelines.diffusion.networks.layers import GEGLU
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine
from personalive.pipelines.diffusion.stages.memory_format import StepSize, optimize
from tests.pipelines.diffusion.conditioning import build_conditioning

_ALIKE = 1e-6
"""Merged weights are summed in float32."""


def operations(models: Components) -> set[Any]:
    modules = (module for network in models.networks().values() for module in network.modules())
    return {module.operations for module in modules if isinstance(module, OperationsModule)}


def error(ours: Tensor, exact: Tensor) -> float:
    return float((ours - exact).norm() / exact.norm())


@pytest.fixture
def own(models: Components) -> Components:
    """Networks to change for good."""
    return replace(models, **{name: deepcopy(network) for name, network in models.networks().items()})  # type: ignore[arg-type]


class Pairing(Operations):
    """Fused as far as the layout is concerned."""

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        del rows, linear
        return True


def paired(models: Components) -> set[str]:
    """The networks that have gates beside their values."""
    return {
        name
        for name, network in models.networks().items()
        for module in network.modules()
        if isinstance(module, GEGLU) and module.is_interleaved
    }


def test_gates_are_paired_where_operations_want_them_so(own: Components) -> None:
    optimize(own, Operations())
    assert paired(own) == set()
    optimize(own, Pairing())
    assert paired(own) == {"denoising_unet", "reference_unet", "motion_encoder"}


class Asked(Pairing):
    """Says for how many tokens it was asked, and pairs where there are many."""

    def __init__(self) -> None:
        self.rows: set[tuple[int, int]] = set()

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        self.rows.add((linear.in_features, rows))
        return rows >= 1000


def test_gates_are_paired_by_how_many_tokens_a_layer_has(own: Components) -> None:
    asked = Asked()
    optimize(own, asked, StepSize(height=128, width=64, window=16, chunk=4))
    widths = own.denoising_unet.params.block_out_channels
    # 16 × 8 latents, halved from level to level; the middle block is at the lowest.
    assert {(widths[level], 16 * 16 * 8 // 4**level) for level in range(4)} <= asked.rows
    assert (own.reference_unet.params.block_out_channels[0], 16 * 8) in asked.rows
    assert paired(own) == {"denoising_unet", "motion_encoder"}
    blocks = own.denoising_unet.blocks()
    gates = [{m.is_interleaved for m in block.modules() if isinstance(m, GEGLU)} for block in blocks]
    assert gates[0] == gates[-1] == {True}
    assert gates[3] == gates[4] == {False}


def test_what_waits_on_the_host_is_not_laid_out_anew(own: Components) -> None:
    optimize(own.offload(["reference_unet"]), Pairing())
    assert paired(own) == {"denoising_unet", "motion_encoder"}


class Placed(Pairing):
    """Says where it was asked."""

    def __init__(self) -> None:
        self.devices: set[str] = set()

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        self.devices.add(linear.weight.device.type)
        return super().prefers_interleaved(rows, linear)


def test_what_is_on_the_host_to_be_streamed_is_asked_for_on_the_device(own: Components) -> None:
    placed = Placed()
    optimize(replace(own, device=torch.device("meta")), placed)
    assert placed.devices == {"meta"}
    assert paired(own) == {"denoising_unet", "reference_unet", "motion_encoder"}
    assert {weight.device.type for weight in own.denoising_unet.parameters()} == {"cpu"}


def test_however_networks_are_laid_out_their_weights_are_known_by_the_same_name(own: Components) -> None:
    before = own.fingerprint()
    optimize(own, Pairing())
    assert own.fingerprint() == before


def test_with_fused_operations_convolutions_lie_channels_last(own: Components) -> None:
    fused = Operations()
    weight = own.denoising_unet.conv_in.weight
    before = weight.clone()
    optimize(own, fused)
    assert {
        module.operations for module in own.vae.encoder.modules() if isinstance(module, OperationsModule)
    } == {PLAIN_OPERATIONS}
    assert operations(replace(own, vae=own.vae.decoder)) == {fused}  # type: ignore[arg-type]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, before)
    assert own.tiny_vae is not None
    for network in (own.denoising_unet, own.reference_unet, own.vae.decoder, own.tiny_vae):
        for each in network.parameters():
            assert each.ndim != 4 or each.is_contiguous(memory_format=torch.channels_last)


def test_laid_out_networks_compute_the_same(models: Components, own: Components) -> None:
    """In double precision: what is claimed is algebra, and small pictures magnify how a CPU happens to round."""
    plain_reference, plain_unet = (
        deepcopy(models.reference_unet).double(),
        deepcopy(models.denoising_unet).double(),
    )
    reference, unet = own.reference_unet.double(), own.denoising_unet.double()
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    latents, embeds = drawn(1, 4, 8, 8), drawn(1, 1, reference.params.cross_attention_width)
    cross = plain_reference.compute_cross_constants(embeds)
    banks = plain_reference(latents, cross)
    width = cast("DenoisingUNetParams", unet.params).motion_width
    window = drawn(1, 4, 4, 8, 8)
    conditions = build_conditioning(
        plain_unet,
        timesteps=torch.tensor([0, 333, 666, 999]),
        motion=drawn(1, 4, 32, width),
        pose=drawn(1, unet.params.block_out_channels[0], 4, 8, 8),
        image_embeds=embeds,
        banks=[banks],
    )
    for _ in range(2):
        optimize(own, Pairing())
        for ours, plain in zip(reference(latents, cross), banks, strict=True):
            assert error(ours, plain) < _ALIKE
        assert error(unet(window, conditions), plain_unet(window, conditions)) < _ALIKE


def test_without_a_gpu_and_on_request_operations_are_pytorchs(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    for kernels in ("auto", "pytorch"):
        DiffusionEngine(models, set_to.model_copy(update={"kernels": kernels}))
        assert operations(models) == {PLAIN_OPERATIONS}
