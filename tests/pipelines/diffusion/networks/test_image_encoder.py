from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from personalive.pipelines.diffusion.checkpoints.hf_config import read_image_encoder_params
from personalive.pipelines.diffusion.networks.image_encoder import ImageEncoder, ImageEncoderParams


def library(**changed: Any) -> Any:
    sizes: dict[str, Any] = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
        "projection_dim": 24,
    }
    torch.manual_seed(0)
    encoder: Any = CLIPVisionModelWithProjection(CLIPVisionConfig(**{**sizes, **changed}))
    for tensor in encoder.parameters():  # the library starts biases at zero and norms at one
        tensor.data += 0.1 * torch.randn_like(tensor)
    return encoder.requires_grad_(False).eval()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.inference_mode()
def test_vectors_are_the_librarys(activation: str) -> None:
    theirs = library(hidden_act=activation, layer_norm_eps=1e-3)
    own = ImageEncoder(read_image_encoder_params(theirs.config.to_dict()))
    own.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, 28, 28)
    expected = theirs(pixel_values=pixels).image_embeds
    torch.testing.assert_close(own(pixels), expected, rtol=1e-5, atol=1e-6)


def test_entries_are_the_librarys_at_the_released_size() -> None:
    released = ImageEncoderParams()
    with torch.device("meta"):
        own = ImageEncoder(released)
        theirs = library(
            hidden_size=released.width,
            intermediate_size=released.inner_width,
            num_hidden_layers=released.layers,
            num_attention_heads=released.heads,
            image_size=released.image_size,
            patch_size=released.patch_size,
            projection_dim=released.out_width,
        )
    ours = {name: tensor.shape for name, tensor in own.state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in theirs.state_dict().items()}


def test_a_width_that_its_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="do not divide into 16 heads"):
        ImageEncoder(ImageEncoderParams(width=40))
