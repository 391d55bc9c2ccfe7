from __future__ import annotations

import dataclasses

import pytest
import torch

from personalive.errors import InputError
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.stages.frame_decoder import FrameDecoder, to_images


def latents(frames: int) -> torch.Tensor:
    return torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(0)) / 2


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["full", "tiny"])
def test_frames_are_what_the_autoencoder_makes(models: Components, kind: str) -> None:
    network = models.vae if kind == "full" else models.tiny_vae
    assert network is not None
    given = latents(3)
    frames = FrameDecoder(models, kind)(given)
    pictures = network.decode(given)
    assert frames.shape == (3, 3, 64, 64)
    torch.testing.assert_close(frames, (pictures / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_frames_decoded_in_parts_are_the_same(models: Components) -> None:
    given = latents(3)
    parts = FrameDecoder(models, "full", frames_at_once=1)(given)
    torch.testing.assert_close(parts, FrameDecoder(models, "full")(given), rtol=1e-4, atol=1e-5)


def test_without_the_tiny_autoencoder_its_download_is_named(models: Components) -> None:
    lacking = dataclasses.replace(models, tiny_vae=None)
    with pytest.raises(InputError, match="personalive download --tiny"):
        FrameDecoder(lacking, "tiny")


def test_images_are_rounded_and_have_their_colours_last() -> None:
    pixels = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    images = to_images(pixels)
    assert images.shape == (1, 2, 2, 3)
    assert images.is_contiguous()
    assert images[0, :, :, 0].flatten().tolist() == [0, 0, 1, 255]
