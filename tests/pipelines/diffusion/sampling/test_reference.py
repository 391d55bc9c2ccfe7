from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from personalive.errors import NoFaceError
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion, MotionExtractor
from personalive.pipelines.diffusion.sampling.reference import (
    FusedReference,
    compute_reference_id,
    fuse_reference,
)
from tests.pipelines.diffusion.streams import SIDE, picture


def test_equal_ids_mean_the_same_picture_size_and_weights() -> None:
    image = picture(1)
    name = compute_reference_id(image, 64, 64, "weights")
    assert name == compute_reference_id(image.copy(), 64, 64, "weights")
    others = {
        compute_reference_id(picture(2), 64, 64, "weights"),
        compute_reference_id(image, 64, 128, "weights"),
        compute_reference_id(image, 128, 64, "weights"),
        compute_reference_id(image, 64, 64, "others"),
        compute_reference_id(image.reshape(32, 128, 3), 64, 64, "weights"),
    }
    assert len(others | {name}) == 6


def test_a_reference_holds_what_sessions_need(reference: FusedReference, models: Components) -> None:
    assert reference.latents.shape == (1, 4, SIDE // 8, SIDE // 8)
    assert reference.motion.shape == (1, 32, 16)
    assert reference.head.keypoints.shape == (1, 21, 3)
    assert all(len(pair.key) == len(pair.value) == 1 for pair in reference.banks)
    tensors = [
        reference.latents,
        reference.motion,
        *reference.cross_attention,
        *reference.keyframe_cross_attention,
    ]
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)
    assert reference.latents.dtype == torch.float32
    assert len(repr(reference)) < 100_000
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference.id = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        reference.image[0] = 0


def test_the_latents_are_the_autoencoders_mean(reference: FusedReference, models: Components) -> None:
    pixels = torch.tensor(picture(1)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        mean = models.vae.encode(pixels)
    assert torch.allclose(mean, reference.latents, atol=1e-5)


class OutOfFrame(nn.Module):
    """An extractor that places every head far beside the picture."""

    def __init__(self, within: MotionExtractor) -> None:
        super().__init__()
        self.within = within
        self.params = within.params

    def forward(self, pixels: Tensor) -> HeadMotion:
        head: HeadMotion = self.within(pixels)
        return head._replace(translation=head.translation + 50)


def test_a_face_beside_the_picture_is_refused_unless_allowed(models: Components) -> None:
    astray = dataclasses.replace(models, motion_extractor=OutOfFrame(models.motion_extractor))  # type: ignore[arg-type]

    def fused(*, allow: bool) -> FusedReference:
        image = picture(1)
        return fuse_reference(
            astray,
            image,
            height=SIDE,
            width=SIDE,
            reference_id="name",
            display_image=image,
            face=None,
            allow_no_face=allow,
        )

    with pytest.raises(NoFaceError, match="larger and central"):
        fused(allow=False)
    assert fused(allow=True).motion.shape == (1, 32, 16)


def test_any_size_of_picture_is_fused_for_the_loaded_size(models: Components) -> None:
    image = picture(3, 100, 37)
    with torch.inference_mode():
        made = fuse_reference(
            models,
            image,
            height=64,
            width=128,
            reference_id="n",
            display_image=image,
            face=None,
            allow_no_face=True,
        )
    assert made.latents.shape == (1, 4, 8, 16)
    assert np.array_equal(made.image, image)
