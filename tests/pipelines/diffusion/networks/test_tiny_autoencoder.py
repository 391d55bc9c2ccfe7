from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny

from personalive.pipelines.diffusion.checkpoints.hf_config import read_tiny_autoencoder_params
from personalive.pipelines.diffusion.checkpoints.network_specs import TINY_VAE
from personalive.pipelines.diffusion.networks.tiny_autoencoder import TinyAutoencoder
from personalive.pipelines.diffusion.stages.memory_format import fuse_upsampling


def library(width: int, blocks: tuple[int, ...]) -> Any:
    torch.manual_seed(0)
    vae: Any = AutoencoderTiny(  # type: ignore[no-untyped-call]
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_decoder_blocks=blocks,
    )
    return vae.requires_grad_(False).eval()


def renamed(vae: Any) -> dict[str, torch.Tensor]:
    """The library's entries as they are read, the encoder's left out."""
    entries = {
        TINY_VAE.rename(name, tuple(tensor.shape))[0]: tensor for name, tensor in vae.state_dict().items()
    }
    return {
        name: tensor for name, tensor in entries.items() if not name.startswith(TINY_VAE.ignored_prefixes)
    }


@pytest.mark.parametrize("blocks", [(3, 3, 3, 1), (1, 2, 1, 1)])
@pytest.mark.parametrize("merged", [False, True])
@torch.inference_mode()
def test_pictures_are_the_librarys(blocks: tuple[int, ...], merged: bool) -> None:
    vae = library(16, blocks)
    own = TinyAutoencoder(read_tiny_autoencoder_params(vae.config))
    own.load_state_dict(renamed(vae))
    if merged:
        fuse_upsampling(own)
    latents = 4 * torch.randn(2, 4, 6, 5)  # beyond the bound
    torch.testing.assert_close(own.decode(latents), vae.decode(latents).sample, rtol=1e-4, atol=1e-5)


def test_entries_are_the_librarys_at_the_released_size() -> None:
    with torch.device("meta"):
        vae = library(64, (3, 3, 3, 1))
        own = TinyAutoencoder(read_tiny_autoencoder_params(vae.config))
    ours = {name: tensor.shape for name, tensor in own.state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in renamed(vae).items()}
    assert {TINY_VAE.restore_name(name) for name in ours} <= vae.state_dict().keys()
