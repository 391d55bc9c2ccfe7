from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from personalive.pipelines.diffusion.checkpoints.hf_config import read_autoencoder_params
from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder


def library(**changed: object) -> Any:
    sizes = {
        "block_out_channels": (8, 16, 16, 24),
        "layers_per_block": 1,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 8,
        "scaling_factor": 0.5,
    }
    torch.manual_seed(0)
    vae: Any = AutoencoderKL(**{**sizes, **changed})  # type: ignore[no-untyped-call]
    return vae.requires_grad_(False).eval()


def same(vae: Any) -> Autoencoder:
    """Ours, of the library's sizes and weights."""
    own = Autoencoder(read_autoencoder_params(vae.config))
    own.load_state_dict(vae.state_dict())
    return own.requires_grad_(False).eval()


@pytest.mark.parametrize("layers", [1, 2])
def test_latents_and_pictures_are_the_librarys(layers: int) -> None:
    vae = library(layers_per_block=layers)
    own = same(vae)
    pixels, latents = 2 * torch.rand(2, 3, 40, 56) - 1, torch.randn(2, 4, 6, 5)
    mean = vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(own.encode(pixels), 0.5 * mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.decode(0.5 * latents), vae.decode(latents).sample, rtol=1e-4, atol=1e-5)


def test_it_computes_in_float64() -> None:
    vae = library().double()
    own = same(vae).double()
    pixels = 2 * torch.rand(1, 3, 32, 32, dtype=torch.float64) - 1
    mean = vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(own.encode(pixels), 0.5 * mean, rtol=1e-12, atol=1e-13)


def test_entries_are_the_librarys_at_the_released_size() -> None:
    with torch.device("meta"):
        vae = library(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            norm_num_groups=32,
        )
        own = Autoencoder(read_autoencoder_params(vae.config))
    ours = {name: tensor.shape for name, tensor in own.state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in vae.state_dict().items()}
