"""A fused reference: everything that sessions need of a portrait, computed once.

It is immutable, so any number of sessions may share one. The features that the denoising UNet attends to are kept
as projected keys and values.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from personalive.errors import NoFaceError
from personalive.face.face import Box
from personalive.face.placement import compute_overlap
from personalive.media.types import Image
from personalive.pipelines.base import DetectedFace, Reference
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.device.devices import exact_float32
from personalive.pipelines.diffusion.memory.allocator import run_with_memory_limit
from personalive.pipelines.diffusion.memory.footprint import count_encoder_bytes
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.preprocessing.face_crops import compute_face_boxes, crop_faces
from personalive.pipelines.diffusion.preprocessing.keypoints import transform_keypoints
from personalive.pipelines.diffusion.preprocessing.pixels import (
    make_reference_thumbnail,
    preprocess_clip_image,
    preprocess_reference,
)

_CROP_REACH = 0.75
"""Half the side of the motion encoder's crop, divided by the larger side of a face's box."""
_MIN_OVERLAP = 0.2
"""Intersection over union from which the motion extractor's crop shows the chosen face."""
_WORKSPACE_BYTES = 1 << 30
"""Bytes that libraries may use for workspaces while a reference is encoded."""


@dataclass(frozen=True, slots=True, eq=False)
class FusedReference(Reference):
    """A portrait, fused for sessions of height × width pixels, whose latents are h × w.

    `latents` float32 (1, 4, h, w); `head`: the portrait's head motion; `motion`: its motion tokens (1, 32, 16);
    `banks`: for each spatial transformer the denoising UNet's keys and values (1, h'·w', C); `cross_attention` and
    `keyframe_cross_attention`: the cross-attention constants of the denoising and of the reference UNet.
    """

    id: str
    image: Image
    face: DetectedFace | None
    latents: Tensor = field(repr=False)
    head: HeadMotion = field(repr=False)
    motion: Tensor = field(repr=False)
    banks: tuple[KeyValue, ...] = field(repr=False)
    cross_attention: tuple[Tensor, ...] = field(repr=False)
    keyframe_cross_attention: tuple[Tensor, ...] = field(repr=False)


def compute_reference_id(
    image: Image, height: int, width: int, weights: str, face_box: Box | None = None
) -> str:
    """Return a hash of a picture, the size it is fused for, the hash of the weights and a chosen face's box."""
    facts = f"{image.shape} {height}x{width} {weights}{'' if face_box is None else f' {face_box}'}".encode()
    return hashlib.sha256(facts + image.tobytes()).hexdigest()[:16]


def _face_crop_box(face: Box, image: Image, size: tuple[int, int]) -> Box:
    """Return the square around a face that the motion encoder sees, in pixels of the portrait at `size`."""
    across, down = size[0] / image.shape[1], size[1] / image.shape[0]
    x, y = (face[0] + face[2]) / 2 * across, (face[1] + face[3]) / 2 * down
    reach = _CROP_REACH * max((face[2] - face[0]) * across, (face[3] - face[1]) * down)
    left, right = (min(max(side, 0.0), size[0] - 1.0) for side in (x - reach, x + reach))
    top, bottom = (min(max(side, 0.0), size[1] - 1.0) for side in (y - reach, y + reach))
    return left, top, right, bottom


@torch.inference_mode()
@exact_float32()
def fuse_reference(
    components: Components,
    image: Image,
    *,
    height: int,
    width: int,
    reference_id: str,
    display_image: Image,
    face: DetectedFace | None,
    face_box: Box | None = None,
    allow_no_face: bool = False,
) -> FusedReference:
    """Fuse a picture, uint8 RGB (H, W, 3) of any size.

    `reference_id` becomes the id; `display_image` is the picture at height × width. The original is resized
    separately for each network. Raises `NoFaceError` when the motion extractor places the face outside of the
    picture, unless `allow_no_face` is set: then the whole picture is used as the face. With `face_box`, in pixels
    of the picture, the face is there: where the motion extractor places it elsewhere, the box decides.
    """
    device, dtype = components.device, components.dtype
    clip = preprocess_clip_image(image, components.image_encoder.params.image_size).to(device, dtype)
    with components.onloaded("image_encoder"):
        embeds = components.image_encoder(clip)[:, None]
    pixels = preprocess_reference(image, height, width).to(device)
    with components.onloaded("vae.encoder"):
        room = _WORKSPACE_BYTES + 2 * count_encoder_bytes(components.vae, height * width)
        latents = run_with_memory_limit(device, room, lambda: components.vae.encode(pixels)).float()
    with components.onloaded("reference_unet"):
        keyframe_cross = components.reference_unet.compute_cross_constants(embeds)
        banks = components.reference_unet(latents.to(dtype), keyframe_cross)
    thumbnail = make_reference_thumbnail(image, components.motion_extractor.params.image_size)
    head = components.motion_extractor(thumbnail.to(device))
    placed = None if face_box is None else _face_crop_box(face_box, image, (width, height))
    return FusedReference(
        id=reference_id,
        image=display_image,
        face=face,
        latents=latents,
        head=head,
        motion=_encode_reference_motion(components, pixels, head, placed, allow_no_face),
        banks=components.denoising_unet.project_banks(banks),
        cross_attention=components.denoising_unet.compute_cross_constants(embeds),
        keyframe_cross_attention=keyframe_cross,
    )


def _encode_reference_motion(
    components: Components, pixels: Tensor, head: HeadMotion, placed: Box | None, allow_no_face: bool
) -> Tensor:
    """Return the motion tokens (1, 32, 16) of the reference's own face; `placed`: the crop of a chosen one."""
    height, width = pixels.shape[2:]
    size = components.motion_encoder.params.image_size
    boxes = compute_face_boxes(transform_keypoints(head), height, width)
    if placed is not None:
        left, top, right, bottom = (float(side) for side in boxes[0])
        if compute_overlap((left, top, right, bottom), placed) < _MIN_OVERLAP:
            boxes = torch.tensor([[round(side) for side in placed]], device=pixels.device)
    crops, valid = crop_faces(pixels, boxes, size)
    if not bool(valid.all()):
        if not allow_no_face:
            raise NoFaceError(
                "The face in the reference could not be placed: use a picture in which it is larger and central."
            )
        crops = crop_faces(pixels, torch.tensor([[0, 0, width, height]], device=pixels.device), size).crops
    motion: Tensor = components.motion_encoder(crops.to(components.dtype))
    return motion
