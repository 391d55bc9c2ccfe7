from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import pytest
import torch
from torch import nn

from personalive.pipelines.base import AnimatedChunk
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.device import pinned_memory
from personalive.pipelines.diffusion.device.offload import OffloadedModule
from personalive.pipelines.diffusion.memory.plan import select_plans
from personalive.pipelines.diffusion.memory.planner import make_plans_for_components
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.unet import UNetParams
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.session import PersonaLiveSession
from tests.pipelines.diffusion.streams import chunk, picture

META = torch.device("meta")


def test_a_network_is_on_the_device_only_while_it_is_taken() -> None:
    linear = nn.Linear(3, 2)
    network = nn.Sequential(linear, nn.BatchNorm1d(2)).requires_grad_(False)
    before = linear.weight.clone()
    shelf = OffloadedModule(network)
    weight = linear.weight
    with shelf.onloaded(META):
        assert {tensor.device for tensor in network.state_dict().values()} == {META}
        with shelf.onloaded(META):
            pass
        assert linear.weight.device == META
    assert linear.weight is weight
    assert torch.equal(weight, before)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"cpu"}


def test_it_comes_back_after_a_failure_and_from_within_inference() -> None:
    network = nn.Linear(2, 2).requires_grad_(False)
    shelf = OffloadedModule(network)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="broken"), shelf.onloaded(META):
        raise RuntimeError("broken")
    assert network.weight.device.type == "cpu"
    with torch.inference_mode(), shelf.onloaded(torch.device("cpu")):
        assert network(torch.ones(1, 2)).shape == (1, 2)


def test_of_a_unet_one_unit_is_there_at_a_time_and_none_changes_what_it_computes() -> None:
    torch.manual_seed(0)
    sizes = UNetParams(block_out_channels=(32, 64), layers_per_block=1, heads=2, cross_attention_width=8)
    network = ReferenceUNet(sizes).requires_grad_(False)
    latents, embeds = torch.randn(1, 4, 8, 8), torch.randn(1, 1, 8)
    cross = network.compute_cross_constants(embeds)
    expected = network(latents, cross)
    shelf = OffloadedModule(network)
    units = network.units()

    def there() -> list[bool]:
        devices = [{p.device for part in unit for p in part.parameters()} for unit in units]
        return [found == {META} for found in devices]

    with shelf.onloaded(META):
        assert network.conv_in.weight.device == META
        assert not any(there())
        for number in range(len(units)):
            with network.block_context(number):
                assert there() == [place == number for place in range(len(units))]
    with shelf.onloaded(torch.device("cpu")):
        for ours, before in zip(network.compute_cross_constants(embeds), cross, strict=True):
            assert torch.equal(ours, before)
        for ours, before in zip(network(latents, cross), expected, strict=True):
            assert torch.equal(ours, before)


class Noted(OffloadedModule):
    """Counts how often its network is taken."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.times = 0

    def onloaded(self, device: torch.device):  # type: ignore[no-untyped-def]
        self.times += 1
        return super().onloaded(device)


@pytest.mark.slow
def test_with_low_vram_references_and_keyframes_fetch_what_they_need_and_results_are_the_same(
    set_to: PersonaLiveLoadParameters,
    pipeline: PersonaLivePipeline,
    reference: FusedReference,
    aged: bytes,
) -> None:
    run = PersonaLiveRunParameters(keyframe_threshold=0.0)

    def steps(session: PersonaLiveSession) -> list[AnimatedChunk]:
        session.restore(aged)
        return [session.step(chunk(1, index)) for index in (9, 10)]

    with pipeline.open_session(reference, run) as session:
        expected = steps(session)
    with PersonaLivePipeline.load(set_to.model_copy(update={"low_vram": "on"})) as own:
        models: Components = own._require_engine().components
        assert set(models.offloaded) == {"image_encoder", "vae.encoder", "reference_unet"}
        noted = {name: Noted(attrgetter(name)(models)) for name in models.offloaded}
        models.offloaded.update(noted)  # type: ignore[attr-defined]
        again = own.fuse(picture(1))
        assert {name: shelf.times for name, shelf in noted.items()} == {
            "image_encoder": 1,
            "vae.encoder": 1,
            "reference_unet": 1,
        }
        with own.open_session(again, run) as session:
            ours = steps(session)
        assert noted["reference_unet"].times == 3
    # Frames decoded one by one are rounded differently.
    for one, other in zip(ours, expected, strict=True):
        assert abs(one.images.astype(int) - other.images.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("device", "low_vram", "waiting"),
    [
        ("cpu", "off", ()),
        ("cpu", "auto", ()),
        ("cuda", "off", ("image_encoder", "vae.encoder")),
        ("cuda", "on", ("image_encoder", "vae.encoder", "reference_unet")),
        ("cpu", "on", ("image_encoder", "vae.encoder", "reference_unet")),
    ],
)
def test_what_waits_on_the_host(
    models: Components,
    set_to: PersonaLiveLoadParameters,
    device: str,
    low_vram: str,
    waiting: tuple[str, ...],
) -> None:
    found = make_plans_for_components(replace(models, device=torch.device(device)), set_to)
    assert select_plans(found, low_vram)[0].waiting == waiting


def test_without_page_locked_memory_it_waits_in_ordinary_memory_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pinned_memory._PinningFailure, "logged", False)
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).requires_grad_(False)
    expected = network(torch.ones(1, 3))
    shelf = OffloadedModule(network)
    with shelf.onloaded(torch.device("cpu")):
        assert torch.equal(network(torch.ones(1, 3)), expected)
    (said,) = caplog.messages
    assert said.startswith("memory cannot be page-locked")
