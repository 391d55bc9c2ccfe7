from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from personalive.pipelines.personalive.networks.vae_decoder import VaeDecoder, VaeDecoderParams


def library(**changed: object) -> Any:
    sizes = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 8,
    }
    torch.manual_seed(0)
    vae: Any = AutoencoderKL(**{**sizes, **changed})  # type: ignore[no-untyped-call]
    return vae.requires_grad_(False).eval()


@pytest.mark.parametrize("layers", [1, 2])
def test_it_computes_what_the_library_does(layers: int) -> None:
    vae = library(layers_per_block=layers)
    own = VaeDecoder.of(vae)
    assert own is not None
    latents = torch.randn(2, 4, 6, 5)
    torch.testing.assert_close(own(latents), vae.decode(latents).sample, rtol=1e-4, atol=1e-5)


def test_weights_are_shared_not_copied() -> None:
    vae = library()
    own = VaeDecoder.of(vae)
    assert own is not None
    theirs = {tensor.data_ptr() for tensor in vae.state_dict().values()}
    assert {tensor.data_ptr() for tensor in own.state_dict().values()} <= theirs


def test_entries_are_the_librarys_at_the_released_size() -> None:
    with torch.device("meta"):
        own = VaeDecoder(VaeDecoderParams())
        vae: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    ours = {name: tensor.shape for name, tensor in own.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in vae.state_dict().items()}
    assert ours.pop("post_quant_conv.weight") == theirs["post_quant_conv.weight"]
    assert ours.pop("post_quant_conv.bias") == theirs["post_quant_conv.bias"]
    decoder = "decoder."
    assert ours == {
        name.removeprefix(decoder): shape for name, shape in theirs.items() if name.startswith(decoder)
    }


@pytest.mark.parametrize("changed", [{"act_fn": "relu"}, {"mid_block_add_attention": False}])
def test_an_autoencoder_of_another_kind_is_not_taken(changed: dict[str, object]) -> None:
    assert VaeDecoder.of(library(**changed)) is None
