"""A fused reference: everything about a portrait that sessions need, computed once.

Immutable, so any number of sessions may share one. What the denoising UNet attends to is kept projected.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from personalive.errors import NoFaceError
from personalive.media.types import Image
from personalive.pipelines.base import FaceFound, Reference
from personalive.pipelines.diffusion.components import Models
from personalive.pipelines.diffusion.device.allocator import sparingly
from personalive.pipelines.diffusion.device.devices import exact_float32
from personalive.pipelines.diffusion.memory.footprint import encoded_bytes
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.preprocessing.face_crops import crop_faces, face_boxes
from personalive.pipelines.diffusion.preprocessing.keypoints import keypoints
from personalive.pipelines.diffusion.preprocessing.pixels import (
    clip_pixels,
    reference_pixels,
    reference_thumbnail,
)

_ROOM = 1 << 30
"""Bytes for workspaces while a reference is encoded."""


@dataclass(frozen=True, slots=True, eq=False)
class FusedReference(Reference):
    """A portrait for sessions of height × width pixels, latents h × w.

    `latents` float32 (1, 4, h, w); `head`: its head motion; `motion` its own motion tokens (1, 32, 16);
    `banks` per spatial transformer the denoising UNet's keys and values (1, h'·w', C); `cross` and
    `keyframe_cross` the cross-attention constants of the denoising and of the reference UNet.
    """

    id: str
    image: Image
    face: FaceFound | None
    latents: Tensor = field(repr=False)
    head: HeadMotion = field(repr=False)
    motion: Tensor = field(repr=False)
    banks: tuple[KeyValue, ...] = field(repr=False)
    cross: tuple[Tensor, ...] = field(repr=False)
    keyframe_cross: tuple[Tensor, ...] = field(repr=False)


def identity(image: Image, height: int, width: int, weights: str) -> str:
    """Hash of a picture, the size it is fused for and the weights it is fused with: equal means the same."""
    facts = f"{image.shape} {height}x{width} {weights}".encode()
    return hashlib.sha256(facts + image.tobytes()).hexdigest()[:16]


@torch.inference_mode()
@exact_float32()
def fuse(
    models: Models,
    image: Image,
    *,
    height: int,
    width: int,
    name: str,
    shown: Image,
    face: FaceFound | None,
    allow_no_face: bool = False,
) -> FusedReference:
    """Fuse a picture, uint8 RGB (H, W, 3) of any size.

    `name` becomes the id, `shown` is the picture at height × width. Every network gets its own resizing of the
    original. Raises `NoFaceError` when the motion extractor places the face outside of the picture, unless
    allowed: then the whole picture stands for it.
    """
    device, dtype = models.device, models.dtype
    clip = clip_pixels(image, models.image_encoder.params.image_size).to(device, dtype)
    with models.at_hand("image_encoder"):
        embeds = models.image_encoder(clip)[:, None]
    pixels = reference_pixels(image, height, width).to(device)
    with models.at_hand("vae.encoder"):
        room = _ROOM + 2 * encoded_bytes(models.vae, height * width)
        latents = sparingly(device, room, lambda: models.vae.encode(pixels)).float()
    with models.at_hand("reference_unet"):
        keyframe_cross = models.reference_unet.cross_constants(embeds)
        banks = models.reference_unet(latents.to(dtype), keyframe_cross)
    thumbnail = reference_thumbnail(image, models.motion_extractor.params.image_size)
    head = models.motion_extractor(thumbnail.to(device))
    return FusedReference(
        id=name,
        image=shown,
        face=face,
        latents=latents,
        head=head,
        motion=_own_motion(models, pixels, head, allow_no_face),
        banks=models.denoising_unet.project_banks(banks),
        cross=models.denoising_unet.cross_constants(embeds),
        keyframe_cross=keyframe_cross,
    )


def _own_motion(models: Models, pixels: Tensor, head: HeadMotion, allow_no_face: bool) -> Tensor:
    """Motion tokens (1, 32, 16) of the reference's own face."""
    height, width = pixels.shape[2:]
    size = models.motion_encoder.params.image_size
    crops, valid = crop_faces(pixels, face_boxes(keypoints(head), height, width), size)
    if not bool(valid.all()):
        if not allow_no_face:
            raise NoFaceError(
                "The face in the reference could not be placed: use a picture in which it is larger and central."
            )
        crops = crop_faces(pixels, torch.tensor([[0, 0, width, height]], device=pixels.device), size).crops
    motion: Tensor = models.motion_encoder(crops.to(models.dtype))
    return motion
