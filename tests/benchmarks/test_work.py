"""Counted work against PyTorch's own counter, on the real networks at a small size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counted_operations import CountedOperations, Kind, Ledger, Piece
from benchmarks.work import META, count, meta_models, table
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_random_components
from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS
from personalive.pipelines.diffusion.networks.resnet import Upsample
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters

SMALL = PersonaLiveLoadParameters(height=64, width=64)


@cache
def counted_small(*, keyframes: int = 0, pairs: bool = True) -> dict[str, list[Piece]]:
    return count(VARIANTS["small"], SMALL, keyframes=keyframes, pairs=pairs)


def flop(pieces: list[Piece], *kinds: Kind) -> float:
    return sum(each.flop for each in pieces if not kinds or each.kind in kinds)


def by_pytorch(run: Callable[[], object]) -> int:
    # Of PyTorch's ways of attention on a CPU, the counter sees this one alone.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    total: int = counter.get_total_flops()
    return total


@pytest.mark.slow
def test_convolutions_of_the_pose_guider_and_the_decoder_are_what_pytorch_counts() -> None:
    counted = counted_small()
    models = build_random_components(VARIANTS["small"], device=torch.device("cpu"))
    pose = by_pytorch(lambda: models.pose_guider.forward_frames(torch.zeros(4, 3, 64, 64)))
    assert flop(counted["encode_pose"]) == pose
    # Merged, as the counted ones are.
    for module in models.vae.decoder.modules():
        if isinstance(module, Upsample):
            module.fuse_conv_transpose()
    decoded = by_pytorch(lambda: models.vae.decode(torch.zeros(4, 4, 8, 8)))
    assert flop(counted["decode"]) == decoded


def test_the_unet_is_what_pytorch_counts_of_the_same_call() -> None:
    """But for attention along time, which is counted by its bytes."""
    from benchmarks.work import _attended
    from personalive.pipelines.diffusion.sampling.scheduler import DDIMScheduler
    from personalive.pipelines.diffusion.stages.frame_decoder import FrameDecoder
    from personalive.pipelines.diffusion.stages.stages import EagerStages

    counted = counted_small()["denoise"]
    models = build_random_components(VARIANTS["small"], device=torch.device("cpu"))
    unet = models.denoising_unet
    for module in unet.modules():
        if isinstance(module, Upsample):
            module.fuse_conv_transpose()
    with torch.no_grad():
        time = unet.compute_time_features(DDIMScheduler.build(4, 4).timesteps)
    stages = EagerStages(models, FrameDecoder(models, "full"), time, 64, 64)

    def made(*shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=kind)

    encoder = models.motion_encoder.params
    attended = _attended(models, (8, 8), 1, made)
    whole = by_pytorch(
        lambda: stages.denoise(
            made(1, 4, 16, 8, 8),
            made(16, encoder.tokens, encoder.token_width),
            made(1, unet.params.block_out_channels[0], 16, 8, 8),
            [attended],
        )
    )
    # Two attentions of 16 × 16 scores for each pixel in every temporal module, two products each.
    along_time = 0
    for layer, modules in zip(unet.layers, unet.motion_temporal_modules, strict=True):
        if modules is not None:
            width = layer.resnet.norm2.num_channels
            along_time += 2 * 2 * 2 * 16 * 16 * width * _pixels(unet, layer.resnet)
    assert flop(counted) + along_time == whole


def _pixels(unet: torch.nn.Module, resnet: torch.nn.Module) -> int:
    lowest = len(unet.down_blocks) - 1  # type: ignore[arg-type]
    for level, block in enumerate(unet.down_blocks):  # type: ignore[arg-type]
        if resnet in list(block.resnets):
            return (8 >> level) ** 2
    for number, block in enumerate(unet.up_blocks):  # type: ignore[arg-type]
        if resnet in list(block.resnets):
            return (8 >> (lowest - number)) ** 2
    return (8 >> lowest) ** 2


@pytest.mark.slow
def test_keyframes_add_attention_and_what_is_joined_for_it_and_nothing_else() -> None:
    none, three = (counted_small(keyframes=number) for number in (0, 3))
    for stage in ("encode_motion", "encode_pose", "decode"):
        assert none[stage] == three[stage]
    for kind in (Kind.PRODUCTS, Kind.CONVOLUTIONS):
        assert flop(none["denoise"], kind) == flop(three["denoise"], kind)
    scores = [
        sum(each.exponentials for each in one["denoise"] if each.kind is Kind.ATTENTION)
        for one in (none, three)
    ]
    # 32 motion tokens are attended to as well, so it is not quite five keys for two.
    assert 1.5 < scores[1] / scores[0] < 2.5
    moved = [sum(each.nbytes for each in one["denoise"]) for one in (none, three)]
    assert moved[1] > moved[0]


@pytest.mark.slow
def test_gates_apart_write_and_read_what_their_products_give() -> None:
    paired, apart = (counted_small(pairs=pairs)["denoise"] for pairs in (True, False))
    assert flop(paired) == flop(apart)
    assert sum(each.nbytes for each in apart) > sum(each.nbytes for each in paired)
    assert len(apart) > len(paired)


@pytest.mark.slow
def test_the_released_unet_takes_what_was_counted_by_hand() -> None:
    """24.1 TFLOP by hand, before doublings took four products a pixel for nine."""
    pieces = count(VARIANTS["released"], PersonaLiveLoadParameters())["denoise"]
    doubled = sum(
        2 * 16 * pixels * channels**2 * (36 - 16)
        for pixels, channels in ((8 * 8, 1280), (16 * 16, 1280), (32 * 32, 640))
    )
    assert (flop(pieces) + doubled) / 1e12 == pytest.approx(24.1, rel=0.05)


@pytest.mark.slow
def test_float8_is_counted_as_the_product_quantizes() -> None:
    counted = count(VARIANTS["released"], PersonaLiveLoadParameters(dtype="float8", vae="tiny"))
    plain = count(VARIANTS["released"], PersonaLiveLoadParameters(vae="tiny"))
    assert flop(counted["denoise"], Kind.EIGHT_BITS) > 0
    both = flop(counted["denoise"], Kind.EIGHT_BITS, Kind.PRODUCTS)
    assert both == pytest.approx(flop(plain["denoise"], Kind.PRODUCTS))


@pytest.mark.parametrize(
    ("call", "nbytes"),
    [
        (lambda ops, x: ops.add_with_stats(x[..., None], x[..., None]), 3 * 512),
        (lambda ops, x: ops.geglu(x), 512 + 256),
        (lambda ops, x: ops.temporal_attention(x[None], x[None], x[None], 2), 4 * 512),
        (lambda ops, x: ops.concat_kv(x, x[:1]), 512 + 128 + 1024),
    ],
)
def test_a_fused_operation_reads_and_writes_each_once(
    call: Callable[[CountedOperations, torch.Tensor], object], nbytes: int
) -> None:
    ledger = Ledger()
    call(CountedOperations(ledger, pairs=True), torch.empty(4, 8, 8, dtype=torch.float16, device=META))
    assert [(each.kind, each.nbytes) for each in ledger.pieces] == [(Kind.PASSES, nbytes)]


def test_the_table_names_every_stage() -> None:
    said = table(counted_small())
    for stage in ("motion networks", "pose guider", "denoising UNet", "decoder"):
        assert f"| {stage} | " in said


@pytest.mark.slow
def test_counting_leaves_the_networks_of_others_alone() -> None:
    count(VARIANTS["small"], SMALL)
    assert meta_models(VARIANTS["small"]).denoising_unet.operations is PLAIN_OPERATIONS
