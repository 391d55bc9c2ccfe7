from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny

from personalive.pipelines.personalive.networks.tiny_decoder import TinyDecoder
from personalive.pipelines.personalive.speed.layout import merge_upsampling

WIDTH = 16


def library(**changed: object) -> Any:
    sizes = {"encoder_block_out_channels": (WIDTH,) * 4, "decoder_block_out_channels": (WIDTH,) * 4}
    torch.manual_seed(0)
    vae: Any = AutoencoderTiny(**{**sizes, **changed})  # type: ignore[no-untyped-call]
    return vae.requires_grad_(False).eval()


@pytest.mark.parametrize("blocks", [(3, 3, 3, 1), (1, 2, 1, 1)])
@pytest.mark.parametrize("merged", [False, True])
@torch.inference_mode()
def test_it_computes_what_the_library_does(blocks: tuple[int, ...], merged: bool) -> None:
    vae = library(num_decoder_blocks=blocks)
    own = TinyDecoder.of(vae)
    assert own is not None
    if merged:
        merge_upsampling(own)
    latents = 4 * torch.randn(2, 4, 6, 5)  # beyond the bound
    torch.testing.assert_close(own(latents), vae.decode(latents).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"act_fn": "gelu"},
        {"upsample_fn": "bilinear"},
        {"upsampling_scaling_factor": 3},
        {"decoder_block_out_channels": (8, WIDTH, WIDTH, WIDTH)},
    ],
)
def test_an_autoencoder_of_another_kind_is_not_taken(changed: dict[str, object]) -> None:
    assert TinyDecoder.of(library(**changed)) is None
