from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from diffusers import AutoencoderKL, AutoencoderTiny
from transformers import CLIPVisionConfig

from personalive.pipelines.diffusion.checkpoints.hf_config import (
    read_autoencoder_params,
    read_image_encoder_params,
    read_tiny_autoencoder_params,
)
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS
from personalive.pipelines.diffusion.networks.autoencoder import AutoencoderParams
from personalive.pipelines.diffusion.networks.image_encoder import ImageEncoderParams
from personalive.pipelines.diffusion.networks.tiny_autoencoder import TinyAutoencoderParams

LEVELS: dict[str, Any] = {
    "block_out_channels": (32,) * 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


def test_the_released_sizes_are_the_defaults() -> None:
    released = VARIANTS["released"]
    assert read_autoencoder_params(released.vae) == AutoencoderParams()
    assert read_tiny_autoencoder_params(released.tiny_vae) == TinyAutoencoderParams()
    assert read_image_encoder_params(released.image_encoder) == ImageEncoderParams()


@pytest.mark.parametrize(
    ("read", "library"),
    [
        (read_autoencoder_params, lambda: AutoencoderKL(**LEVELS)),  # type: ignore[no-untyped-call]
        (read_tiny_autoencoder_params, AutoencoderTiny),
        (read_image_encoder_params, CLIPVisionConfig),
    ],
)
def test_what_a_config_does_not_say_is_as_in_the_library(
    read: Callable[[dict[str, Any]], object], library: Callable[[], Any]
) -> None:
    made = library()
    said = made.to_dict() if isinstance(made, CLIPVisionConfig) else dict(made.config)
    assert read(LEVELS) == read(said)  # of which there must be four, and an AutoencoderKL has one


@pytest.mark.parametrize(
    ("read", "config", "said"),
    [
        (read_autoencoder_params, {"act_fn": "relu"}, "act_fn is 'relu'; 'silu' is what is built"),
        (
            read_autoencoder_params,
            {"down_block_types": ["AttnDownEncoderBlock2D"] * 4},
            "down_block_types is",
        ),
        (
            read_autoencoder_params,
            {"block_out_channels": [32]},
            r"block_out_channels is \[32\], not 4 numbers",
        ),
        (read_autoencoder_params, {"shift_factor": 0.1}, "shift_factor is 0.1; None is what is built"),
        (read_autoencoder_params, {"latents_mean": [0.0] * 4}, "latents_mean"),
        (read_autoencoder_params, {"mid_block_add_attention": False}, "mid_block_add_attention"),
        (read_autoencoder_params, {"use_quant_conv": False}, "use_quant_conv"),
        (read_tiny_autoencoder_params, {"shift_factor": 0.5}, "shift_factor"),
        (read_tiny_autoencoder_params, {"num_decoder_blocks": [1]}, "not 4 numbers"),
        (
            read_autoencoder_params,
            {"scaling_factor": float("nan")},
            "scaling_factor is nan, not a positive number",
        ),
        (read_autoencoder_params, {"layers_per_block": True}, "not a whole number from 1 to 16"),
        (read_tiny_autoencoder_params, {"act_fn": "gelu"}, "act_fn"),
        (read_tiny_autoencoder_params, {"upsample_fn": "bilinear"}, "upsample_fn"),
        (read_tiny_autoencoder_params, {"upsampling_scaling_factor": 3}, "3; 2 is what is built"),
        (read_tiny_autoencoder_params, {"decoder_block_out_channels": [8, 16, 16, 16]}, "differ"),
        (
            read_image_encoder_params,
            {"hidden_act": "nonesuch"},
            "hidden_act is 'nonesuch'; quick_gelu and gelu",
        ),
        (read_image_encoder_params, {"hidden_act": ["gelu"]}, "hidden_act"),
        (read_image_encoder_params, {"layer_norm_eps": 0}, "not a positive number"),
    ],
)
def test_another_kind_of_network_is_refused(
    read: Callable[[dict[str, Any]], object], config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read({**LEVELS, **config})
