"""Which layers are exchanged for ones in 8 bits, and what they compute; kernels have tests of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.kernels.autotuned_ops import AutotunedOperations
from personalive.pipelines.diffusion.kernels.choice_cache import KernelChoiceCache
from personalive.pipelines.diffusion.kernels.fp8 import (
    FLOAT8,
    Float8Convolution,
    Float8GEGLU,
    Float8GroupNorm,
    Float8LayerNorm,
    Float8Linear,
    power_of_two_gain,
    quantize_fp8,
)
from personalive.pipelines.diffusion.kernels.gpu_support import MIN_FLOAT8_CAPABILITY as CAPABILITY
from personalive.pipelines.diffusion.kernels.operations import (
    PLAIN_OPERATIONS,
    Operations,
    TensorWithStats,
)
from personalive.pipelines.diffusion.kernels.selector import PYTORCH, KernelSelector
from personalive.pipelines.diffusion.memory.footprint import count_weight_bytes
from personalive.pipelines.diffusion.networks.layers import GEGLU, FeedForward
from personalive.pipelines.diffusion.parameters import Float8Layers, PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.stages import quantization
from personalive.pipelines.diffusion.stages.memory_format import optimize
from personalive.pipelines.diffusion.stages.quantization import Float8FeedForward, quantize
from tests.pipelines.diffusion.streams import CHUNK, FPS, drive, picture, video

LAYERS: tuple[Float8Layers, ...] = ("feed-forwards", "unet", "decoder", "all")
MOST: dict[Float8Layers, float] = {"unet": 0.1, "all": 0.15}
"""How far a step's results may be from float32's, in pixels' differences from grey."""


@pytest.fixture
def own(models: Components) -> Components:
    """Networks to change for good, in float32."""
    return replace(models, **{name: deepcopy(network) for name, network in models.networks().items()})  # type: ignore[arg-type]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small networks have feed-forwards that count as wide."""
    monkeypatch.setattr(quantization, "_WIDEST", 64)


def eights(network: nn.Module) -> Counter[str]:
    """How many layers of each kind take codes."""
    kinds = (Float8FeedForward, Float8Convolution, Float8GEGLU, Float8Linear)
    return Counter(
        next(kind.__name__ for kind in kinds if isinstance(module, kind))
        for module in network.modules()
        if isinstance(module, kinds)
    )


def error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def test_codes_are_cut_off_and_gains_are_powers_of_two() -> None:
    values = torch.tensor([0.0, 1.0, -3.3, 1e6, -1e6, 2.0**-9])
    assert quantize_fp8(values, 1.0).float().tolist() == [0.0, 1.0, -3.25, 448.0, -448.0, 2.0**-9]
    assert quantize_fp8(values, 2.0).dtype == FLOAT8
    assert [power_of_two_gain(torch.tensor(size), 8.0) for size in (1.0, 0.3, 16.0, 0.0, float("inf"))] == [
        8.0,
        32.0,
        0.5,
        1.0,
        1.0,
    ]


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_of_codes_stays_near_the_exact_one(bias: bool) -> None:
    linear = nn.Linear(64, 48, bias=bias).requires_grad_(False)
    x = torch.randn(3, 10, 64)
    ours = Float8Linear(linear.weight, linear.bias, 8.0)(quantize_fp8(x, 8.0))
    assert (ours.shape, ours.dtype) == ((3, 10, 48), torch.float32)
    assert error(ours, linear(x)) < 0.06


def test_a_convolution_of_codes_stays_near_the_exact_one() -> None:
    layer = nn.Conv2d(32, 48, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 32, 7, 5)
    assert error(Float8Convolution(layer, 8.0)(quantize_fp8(x, 8.0)), layer(x)) < 0.06


@pytest.mark.parametrize("paired", [False, True])
def test_a_feed_forward_of_codes_stays_near_the_exact_one(paired: bool) -> None:
    plain, norm = FeedForward(64).requires_grad_(False), nn.LayerNorm(64).requires_grad_(False)
    norm.weight.normal_(1, 0.3)
    norm.bias.normal_(0, 0.3)
    x, total = 3 * torch.randn(2, 5, 64), torch.ones(2, 5, 64)
    exact = plain(norm(x))
    if paired:
        cast("GEGLU", plain.net[0]).interleave()
    eight = Float8FeedForward(plain, norm, 8.0)
    codes = PLAIN_OPERATIONS.layer_norm(x, Float8LayerNorm(norm, 8.0)).normed
    made = eight.add_to(total, codes)
    assert error(made - 1, exact) < 0.08
    assert torch.equal(total, torch.ones_like(total))
    gated = PLAIN_OPERATIONS.geglu_fp8(codes, eight.inward).float().square().mean().sqrt()
    assert 0.5 < gated < 8


@pytest.mark.usefixtures("narrow")
def test_each_setting_exchanges_what_it_names(own: Components) -> None:
    unet, decoder = own.denoising_unet, own.vae.decoder
    everywhere = sum(isinstance(module, FeedForward) for module in unet.modules())
    convolutions = sum(isinstance(each, nn.Conv2d) for name, each in unet.named_modules() if ".conv" in name)
    quantize(own, PLAIN_OPERATIONS, "feed-forwards")
    wide = eights(unet)
    assert set(wide) == {"Float8FeedForward", "Float8GEGLU", "Float8Linear"}
    assert 0 < wide["Float8FeedForward"] < everywhere
    quantize(own, PLAIN_OPERATIONS, "unet")
    more = eights(unet)
    assert more["Float8FeedForward"] == everywhere
    assert 0 < more["Float8Convolution"] <= convolutions
    assert not eights(decoder)
    quantize(own, PLAIN_OPERATIONS, "decoder")
    assert eights(unet) == more
    assert set(eights(decoder)) == {"Float8Convolution"}
    quantize(own, PLAIN_OPERATIONS, "all")
    assert eights(unet)["Float8Linear"] > more["Float8Linear"]
    rest = {
        name: network for name, network in own.networks().items() if name not in ("denoising_unet", "vae")
    }
    assert not any(map(eights, rest.values()))
    assert not eights(own.vae.encoder)
    norms = [each for each in unet.modules() if isinstance(each, Float8GroupNorm | Float8LayerNorm)]
    assert all(each.gain > 0 for each in norms)


def test_what_is_quantized_stays(own: Components) -> None:
    quantize(own, PLAIN_OPERATIONS, "all")
    before = {name: id(module) for name, module in own.denoising_unet.named_modules()}
    before |= {name: id(module) for name, module in own.vae.named_modules()}
    quantize(own, PLAIN_OPERATIONS, "all")
    after = {name: id(module) for name, module in own.denoising_unet.named_modules()}
    after |= {name: id(module) for name, module in own.vae.named_modules()}
    assert after == before


@pytest.mark.usefixtures("narrow")
def test_what_is_counted_beforehand_is_room_enough(own: Components, models: Components) -> None:
    counted = count_weight_bytes(models.networks(), lambda *_: torch.float32)
    for layers in LAYERS:
        before = own.nbytes
        quantize(own, PLAIN_OPERATIONS, layers)
        assert own.nbytes < before
    assert (
        sum(tensor.nbytes for tensor in own.denoising_unet.state_dict().values())
        < (counted.networks["denoising_unet"])
    )


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("layers", MOST)
def test_frames_stay_near_those_of_float32(
    own: Components,
    set_to: PersonaLiveLoadParameters,
    pipeline: PersonaLivePipeline,
    layers: Float8Layers,
) -> None:
    changed = set_to.model_copy(update={"dtype": "float8", "float8_layers": layers})
    with PersonaLivePipeline(own, changed) as eight:
        assert eights(own.denoising_unet)
        exact, ours = (frames(each) for each in (pipeline, eight))
    assert 0 < error(ours, exact) < MOST[layers]


def frames(pipeline: PersonaLivePipeline) -> Tensor:
    """A session's first chunks, as differences from grey."""
    motion = pipeline.extract_motion(video(1, 2 * CHUNK), FPS)
    with pipeline.open_session(pipeline.fuse(picture(1))) as session:
        parts = drive(session, motion, range(2))
    return torch.cat([torch.from_numpy(part.images) for part in parts]).float() - 128


class Preferring(Operations):
    """Says that some changes are worth it."""

    def __init__(self, *changes: str) -> None:
        self.changes, self.asked = changes, list[tuple[str, Hashable]]()

    def prefers_replacement(
        self,
        change: str,
        given: tuple[Hashable, ...],
        changed: Callable[[], object],
        plain: Callable[[], object],
    ) -> bool:
        changed()
        plain()
        self.asked.append((change, given))
        return change in self.changes


def test_what_is_not_faster_stays_and_each_shape_is_asked_for_once(own: Components) -> None:
    operations = Preferring("8-bit convolution", "8-bit query")
    quantize(own, operations, "all")
    assert set(eights(own.denoising_unet)) == {"Float8Convolution", "Float8Linear"}
    assert {change for change, _ in operations.asked} == {
        f"8-bit {kind}"
        for kind in ("convolution", "feed-forward", "projection in", "query", "self-attention")
    }
    assert len(set(operations.asked)) == len(operations.asked)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY,
    reason="needs a GPU with 8-bit floats",
)
def test_a_network_on_the_host_stays_there(own: Components) -> None:
    elsewhere = replace(own, device=torch.device("cuda"))
    weight = own.denoising_unet.down_blocks[0].resnets[0].conv1.weight  # type: ignore[union-attr,index]
    quantize(elsewhere, PLAIN_OPERATIONS, "all")
    assert eights(own.denoising_unet)
    assert {tensor.device.type for tensor in own.denoising_unet.state_dict().values()} == {"cpu"}
    assert weight.device.type == "cpu"


class Stopwatch:
    """Says how long each form takes."""

    def __init__(self, **ms: float) -> None:
        self.ms, self.asked = ms, list[set[str]]()

    def measure(self, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        self.asked.append(set(calls))
        return {name: self.ms.get(name, 5.0) for name in calls}


@pytest.mark.parametrize(
    ("changed", "plain", "exchanged"), [(1.0, 2.0, True), (2.0, 1.0, False), (0.005, 0.01, False)]
)
def test_forms_are_timed_where_there_is_something_to_gain(
    own: Components, changed: float, plain: float, exchanged: bool
) -> None:
    stopwatch = Stopwatch(changed=changed, **{PYTORCH: plain})
    selector = KernelSelector(stopwatch, KernelChoiceCache(), lambda: False)
    operations = AutotunedOperations(Operations(), selector)
    optimize(own, operations)
    quantize(own, operations, "decoder")
    assert bool(eights(own.vae.decoder)) == exchanged
    assert any("changed" in asked for asked in stopwatch.asked) == (plain > 0.02)
    kept = {key: choice.implementation for key, choice in operations.selector.cache.items() if "8-bit" in key}
    assert set(kept.values()) == {"changed" if exchanged else PYTORCH}


def test_norms_of_codes_share_the_weights_of_those_they_are_made_of() -> None:
    norm = nn.GroupNorm(4, 16).requires_grad_(False)
    eight = Float8GroupNorm(norm, 4.0)
    assert eight.weight is norm.weight
    x = torch.randn(1, 16, 3, 3)
    assert torch.equal(
        PLAIN_OPERATIONS.group_norm(TensorWithStats(x), eight, silu=True),
        quantize_fp8(nn.functional.silu(norm(x)), 4.0),
    )


@pytest.mark.parametrize("failure", [RuntimeError, NotImplementedError, TypeError, ValueError])
def test_a_device_that_cannot_is_refused_in_a_sentence(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some libraries know no such product, and some no such dtype."""

    def refuse(*_: object, **__: object) -> None:
        raise failure("only on sm_89")

    monkeypatch.setattr(torch, "ones", refuse)
    with pytest.raises(InputError, match=r"dtype=float8 needs a GPU .* and mps does not: take float16"):
        quantization.require_float8(torch.device("mps"))


def test_a_cpu_computes_codes_without_a_product_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU's library multiplies depends on its instructions; codes are dequantized instead."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("could not create a primitive descriptor for the matmul primitive")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    quantization.require_float8(torch.device("cpu"))
    linear = nn.Linear(64, 48).requires_grad_(False)
    x = torch.randn(3, 64)
    assert error(Float8Linear(linear.weight, linear.bias, 8.0)(quantize_fp8(x, 8.0)), linear(x)) < 0.06


def test_a_gpu_below_the_capability_is_refused_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    with pytest.raises(InputError, match=r"compute capability 8\.9"):
        quantization.require_float8(torch.device("cuda"))
