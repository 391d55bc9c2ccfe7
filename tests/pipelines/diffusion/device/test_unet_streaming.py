from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from personalive.pipelines.base import AnimatedChunk
from personalive.pipelines.diffusion.device import unet_streaming
from personalive.pipelines.diffusion.device.unet_streaming import StreamedUNet, select_evenly
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet, DenoisingUNetParams
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue, SpatialTransformerBlock
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling import engine
from personalive.pipelines.diffusion.stages.memory_format import fuse_upsampling
from personalive.pipelines.diffusion.stages.stages import EagerStages
from tests.pipelines.diffusion.conditioning import build_conditioning
from tests.pipelines.diffusion.streams import chunk, picture

CPU = torch.device("cpu")


def unet() -> DenoisingUNet:
    torch.manual_seed(0)
    sizes = DenoisingUNetParams(
        block_out_channels=(32, 64), layers_per_block=1, heads=2, cross_attention_width=8, max_frames=4
    )
    network = DenoisingUNet(sizes).requires_grad_(False).eval()
    fuse_upsampling(network)
    for module in network.modules():
        if isinstance(module, SpatialTransformerBlock):
            module.attn1.fuse_qkv()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def run(network: DenoisingUNet) -> list[torch.Tensor]:
    torch.manual_seed(1)
    embeds = torch.randn(1, 1, 8)
    channels = [layer.attention.norm.num_channels for layer in network.layers if layer.attention]
    places = [64, 16, 64, 64]
    banks = [torch.randn(1, count, width) for count, width in zip(places, channels, strict=True)]
    conditions = build_conditioning(
        network,
        timesteps=torch.tensor([3, 9]),
        motion=torch.randn(1, 2, 4, 16),
        pose=torch.randn(1, 32, 2, 8, 8),
        image_embeds=embeds,
        banks=[banks],
    )
    pairs = [tensor for pair in conditions.banks for tensor in KeyValue(*pair)]
    return [network(torch.randn(1, 4, 2, 8, 8), conditions), *conditions.time, *conditions.cross, *pairs]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("piece", [1 << 10, 1 << 25])
def test_streamed_units_compute_the_same_numbers(
    share: float, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet_streaming, "_BLOCK_BYTES", piece)
    expected = run(unet())
    network = unet()
    sizes = [sum(p.numel() for module in unit for p in module.parameters()) for unit in network.units()]
    streamed = StreamedUNet(network, CPU, select_evenly(sizes, share), min_bytes=256)
    assert (streamed.nbytes > 0) == (share > 0)
    for _ in range(2):
        for ours, before in zip(run(network), expected, strict=True):
            assert torch.equal(ours, before)
    assert not streamed.pinned


def test_a_run_that_fails_spoils_nothing_for_the_next() -> None:
    expected = run(unet())
    network = unet()
    StreamedUNet(network, CPU, range(len(network.units())), min_bytes=256)
    with pytest.raises(RuntimeError, match="broken"), network.run_context(), network.block_context(2):
        raise RuntimeError("broken")
    for ours, before in zip(run(network), expected, strict=True):
        assert torch.equal(ours, before)


def test_what_streams_takes_two_places_and_the_rest_is_moved() -> None:
    network = unet()
    before = {name: (tensor.shape, tensor.stride()) for name, tensor in network.state_dict().items()}
    StreamedUNet(network, CPU, range(len(network.units())), min_bytes=256)
    assert {name: (t.shape, t.stride()) for name, t in network.state_dict().items()} == before
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in network.state_dict().values()
    }
    whole = sum(t.nbytes for t in network.state_dict().values())
    assert sum(storages.values()) < whole
    attention = network.layers[0].attention
    assert attention is not None
    assert attention.block.attn1._qkv_weight is not None
    merged = attention.block.attn1._qkv_weight.untyped_storage().data_ptr()
    assert attention.block.attn1.to_k.weight.untyped_storage().data_ptr() == merged


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40), st.floats(0, 1))
def test_about_the_share_is_streamed_and_all_or_nothing_at_the_ends(sizes: list[int], one: float) -> None:
    chosen = select_evenly(sizes, one)
    assert sorted(set(chosen)) == list(chosen)
    assert abs(sum(sizes[number] for number in chosen) - one * sum(sizes)) <= max(sizes) + 1
    assert select_evenly(sizes, 0.0) == ()
    assert sum(sizes[number] for number in select_evenly(sizes, 1.0)) == sum(sizes)


@pytest.mark.parametrize(("locked", "left_out"), [(True, ()), (False, ("denoise",))])
def test_copies_from_ordinary_memory_are_not_recorded(
    set_to: PersonaLiveLoadParameters,
    monkeypatch: pytest.MonkeyPatch,
    locked: bool,
    left_out: tuple[str, ...],
) -> None:
    class Streamed(StreamedUNet):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.pinned = locked

    def accelerated(plain: EagerStages, mode: str, as_they_are: tuple[str, ...]) -> EagerStages:
        assert as_they_are == left_out
        return plain

    monkeypatch.setattr(engine, "StreamedUNet", Streamed)
    monkeypatch.setattr(engine, "accelerate", accelerated)
    PersonaLivePipeline.load(set_to.model_copy(update={"low_vram": "stream"})).close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [pytest.param("half", marks=pytest.mark.slow), "stream", pytest.param("least", marks=pytest.mark.slow)],
)
def test_a_streamed_session_gives_the_same_bytes(
    plan: str,
    set_to: PersonaLiveLoadParameters,
    monkeypatch: pytest.MonkeyPatch,
    aged: bytes,
) -> None:
    monkeypatch.setattr(unet_streaming, "MIN_STREAMED_BYTES", 1024)
    run = PersonaLiveRunParameters(keyframe_threshold=0.0)

    def frames(low_vram: str) -> list[AnimatedChunk]:
        given = set_to.model_copy(update={"low_vram": low_vram})
        with PersonaLivePipeline.load(given) as own:
            assert own.engine.plan.name == low_vram
            assert bool(own.engine.plan.streamed) == (low_vram != "on")
            with own.open_session(own.fuse(picture(1)), run) as session:
                session.restore(aged)
                return [session.step(chunk(1, index)) for index in (9, 10)]

    for ours, before in zip(frames(plan), frames("on"), strict=True):
        assert (ours.images == before.images).all()
