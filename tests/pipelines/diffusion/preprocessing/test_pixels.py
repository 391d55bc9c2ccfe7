from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from personalive.pipelines.diffusion.preprocessing.pixels import (
    frames_to_device,
    make_driving_thumbnails,
    make_reference_thumbnail,
    preprocess_clip_image,
    preprocess_driving,
    preprocess_reference,
)
from tests.pipelines.diffusion.streams import frames, picture


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (224, 224), (512, 512), (300, 451), (451, 300), (225, 224), (100, 999)]
)
def test_clip_sees_what_its_own_processor_makes(height: int, width: int) -> None:
    image = picture(0, height, width)
    theirs = CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"]
    ours = preprocess_clip_image(image)
    assert ours.shape == theirs.shape == (1, 3, 224, 224)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_references_are_scaled_to_what_each_network_takes() -> None:
    image = picture(0, 64, 64)
    pixels = preprocess_reference(image, 64, 64)
    expected = torch.tensor(image).permute(2, 0, 1)[None] / 127.5 - 1
    assert torch.equal(pixels, expected)
    assert preprocess_reference(image, 128, 192).shape == (1, 3, 128, 192)
    thumbnail = make_reference_thumbnail(picture(0, 256, 256))
    assert torch.equal(thumbnail * 255, torch.tensor(picture(0, 256, 256)).permute(2, 0, 1)[None].float())


def test_driving_frames_keep_their_order_and_range() -> None:
    images = frames(0, 3)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    pixels = preprocess_driving(frames_to_device(images, "cpu"))
    assert torch.equal(preprocess_driving(frames_to_device(list(images), "cpu")), pixels)
    images.setflags(write=False)
    assert torch.equal(preprocess_driving(frames_to_device(images, "cpu")), pixels)
    assert pixels.shape == (3, 3, 64, 64)
    assert (float(pixels.min()), float(pixels.max())) == (-1, 1)
    back = np.rint((pixels.permute(0, 2, 3, 1).numpy() + 1) * 127.5)
    assert np.array_equal(back, images)
    thumbnails = make_driving_thumbnails(pixels)
    assert thumbnails.shape == (3, 3, 256, 256)
    assert thumbnails.min() >= 0
    assert thumbnails.max() <= 1
