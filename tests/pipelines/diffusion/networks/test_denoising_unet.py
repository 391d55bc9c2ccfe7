from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.operations import TensorWithStats
from personalive.pipelines.diffusion.networks.denoising_unet import (
    Conditioning,
    DenoisingUNet,
    DenoisingUNetParams,
    concat_banks,
)
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.networks.unet import UNetParams
from tests.pipelines.diffusion.conditioning import build_conditioning
from tests.pipelines.diffusion.figures import assert_near, entries, filled, released_entries

CONTEXT, FRAMES = 6, 4
SIZES = DenoisingUNetParams(block_out_channels=(32, 64, 64), cross_attention_width=CONTEXT)
TIMESTEPS = torch.tensor([0, 333, 666, 999])


@pytest.fixture(scope="module")
def unet() -> DenoisingUNet:
    return filled(lambda: DenoisingUNet(SIZES), "small/denoising_unet")


@pytest.fixture(scope="module")
def reference_unet() -> ReferenceUNet:
    sizes = UNetParams(block_out_channels=(32, 64, 64), cross_attention_width=CONTEXT)
    return filled(lambda: ReferenceUNet(sizes), "small/reference_unet")


class Inputs:
    """Random inputs of some sessions; `conditions` as the network makes them, or those of one session."""

    def __init__(self, unet: DenoisingUNet, references: ReferenceUNet, sessions: int, keyframes: int) -> None:
        random = torch.Generator().manual_seed(sessions + 10 * keyframes)

        def normal(*shape: int) -> Tensor:
            return torch.randn(sessions, *shape, generator=random)

        self.latents = normal(4, FRAMES, 8, 8)
        self.motion = normal(FRAMES, 32, 16)
        self.pose = 0.1 * normal(32, FRAMES, 8, 8)
        self.image_embeds = normal(1, CONTEXT)
        cross = references.compute_cross_constants(self.image_embeds)
        self.banks = [references(normal(4, 8, 8), cross) for _ in range(1 + keyframes)]
        self.conditions = build_conditioning(
            unet,
            timesteps=TIMESTEPS,
            motion=self.motion,
            pose=self.pose,
            image_embeds=self.image_embeds,
            banks=self.banks,
        )


def plain(unet: DenoisingUNet, inputs: Inputs) -> Tensor:
    """The formula of one session, everything projected at every call and every softmax computed."""
    embedding = unet.time_embedding(TIMESTEPS)
    motion = inputs.motion[0]

    def run(number: int, before: TensorWithStats) -> TensorWithStats:
        layer, modules = unet.layers[number], unet.motion_temporal_modules[number]
        x = layer.resnet(before, layer.resnet.time_emb_proj(F.silu(embedding))).tensor
        if layer.attention is not None:
            block, tokens = layer.attention.block, layer.attention.project_in(TensorWithStats(x))
            own = block.norm1(tokens)
            others = [bank[layer.bank].expand(FRAMES, -1, -1) for bank in inputs.banks]
            seen = torch.cat([own, *others], dim=1)
            tokens = tokens + block.attn1(own, block.attn1.to_k(seen), block.attn1.to_v(seen))
            context = inputs.image_embeds.expand(FRAMES, -1, -1)
            cross = block.attn2
            tokens = tokens + cross(block.norm2(tokens), cross.to_k(context), cross.to_v(context))
            x = layer.attention.project_out(x, tokens + block.ff(block.norm3(tokens))).tensor
        if modules is not None:
            first, second = (modules[0].temporal_transformer.attention(index) for index in range(2))
            keys = [KeyValue(each.to_k(motion), each.to_v(motion)) for each in (first, second)]
            x = modules[1](modules[0](TensorWithStats(x), keys), FRAMES).tensor
        return TensorWithStats(x)

    frames = inputs.latents[0].transpose(0, 1)
    x = unet.run_layers(unet.conv_in(frames) + inputs.pose[0].transpose(0, 1), run).tensor
    noise: Tensor = unet.conv_out(F.silu(unet.conv_norm_out(x)))
    return noise.transpose(0, 1)[None]


def test_entries_are_those_of_the_released_files() -> None:
    with torch.device("meta"):
        unet = DenoisingUNet(DenoisingUNetParams())
    assert entries(unet) == released_entries()["denoising_unet"]
    assert sum(modules is not None for modules in unet.motion_temporal_modules) == 21


@pytest.mark.parametrize("keyframes", [0, 1, 3])
def test_computing_constants_once_gives_the_plain_formula(
    unet: DenoisingUNet, reference_unet: ReferenceUNet, keyframes: int
) -> None:
    inputs = Inputs(unet, reference_unet, sessions=1, keyframes=keyframes)
    ours = unet(inputs.latents, inputs.conditions)
    assert ours.shape == inputs.latents.shape
    torch.testing.assert_close(ours, plain(unet, inputs), rtol=1e-4, atol=1e-5)


def test_sessions_in_a_batch_do_not_see_each_other(
    unet: DenoisingUNet, reference_unet: ReferenceUNet
) -> None:
    inputs = Inputs(unet, reference_unet, sessions=2, keyframes=1)
    together = unet(inputs.latents, inputs.conditions)
    alone = build_conditioning(
        unet,
        timesteps=TIMESTEPS,
        motion=inputs.motion[1:],
        pose=inputs.pose[1:],
        image_embeds=inputs.image_embeds[1:],
        banks=[[bank[1:] for bank in banks] for banks in inputs.banks],
    )
    torch.testing.assert_close(together[1:], unet(inputs.latents[1:], alone), rtol=1e-4, atol=1e-5)


def test_projected_motion_may_be_kept_from_call_to_call(
    unet: DenoisingUNet, reference_unet: ReferenceUNet
) -> None:
    inputs = Inputs(unet, reference_unet, sessions=1, keyframes=0)
    old, new = inputs.motion[0].split(FRAMES // 2)
    kept = [
        tuple(
            type(a)(torch.cat([a.key, b.key]), torch.cat([a.value, b.value]))
            for a, b in zip(*pairs, strict=True)
        )
        for pairs in zip(unet.project_motion(old), unet.project_motion(new), strict=True)
    ]
    conditions = replace(inputs.conditions, motion=tuple(kept))  # type: ignore[arg-type]
    assert_near(unet(inputs.latents, conditions), unet(inputs.latents, inputs.conditions))


def test_every_condition_matters(unet: DenoisingUNet, reference_unet: ReferenceUNet) -> None:
    one = Inputs(unet, reference_unet, sessions=1, keyframes=0)
    other = Inputs(unet, reference_unet, sessions=1, keyframes=1)
    noise = unet(one.latents, one.conditions)
    for part in ("motion", "pose", "banks", "cross"):
        changed: Conditioning = replace(one.conditions, **{part: getattr(other.conditions, part)})
        assert not torch.allclose(unet(one.latents, changed), noise, rtol=1e-3), part


def test_the_reference_comes_before_its_keyframes(unet: DenoisingUNet, reference_unet: ReferenceUNet) -> None:
    inputs = Inputs(unet, reference_unet, sessions=1, keyframes=1)
    sources = [unet.project_banks(bank) for bank in inputs.banks]
    joined = concat_banks(sources)
    tokens = sources[0][0].key.shape[1]
    torch.testing.assert_close(joined[0].key[:, :tokens], sources[0][0].key)
    torch.testing.assert_close(joined[0].value[:, tokens:], sources[1][0].value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near(
    unet: DenoisingUNet, reference_unet: ReferenceUNet, dtype: torch.dtype
) -> None:
    exact = Inputs(unet, reference_unet, sessions=1, keyframes=1)
    noise = unet(exact.latents, exact.conditions)
    half = filled(lambda: DenoisingUNet(SIZES), "small/denoising_unet").to(dtype)

    banks = [[bank.to(dtype) for bank in banks] for banks in exact.banks]
    conditions = build_conditioning(
        half,
        timesteps=TIMESTEPS,
        motion=exact.motion.to(dtype),
        pose=exact.pose.to(dtype),
        image_embeds=exact.image_embeds.to(dtype),
        banks=banks,
    )
    drift = (half(exact.latents.to(dtype), conditions).float() - noise).norm() / noise.norm()
    assert drift < (0.02 if dtype is torch.float16 else 0.15)
