"""Motion features of driving frames: the head motion and the motion tokens that condition the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.preprocessing.face_crops import compute_face_boxes, crop_faces
from personalive.pipelines.diffusion.preprocessing.keypoints import transform_keypoints
from personalive.pipelines.diffusion.preprocessing.pixels import make_driving_thumbnails, preprocess_driving

_MAX_SMOOTHING = 0.85
"""The share of the previous frame that the strongest smoothing keeps."""


class MotionFeatures(NamedTuple):
    """The motion features of N driving frames.

    They are head motion, motion tokens (N, 32, 16), face boxes (N, 4), and `valid` (N,) bool: whether the frame
    shows a face. Where it does not, the rest is meaningless.
    """

    head: HeadMotion
    tokens: Tensor
    boxes: Tensor
    valid: Tensor

    def select(self, frames: slice) -> MotionFeatures:
        """Return the features of some of the frames."""
        return MotionFeatures(self.head.select(frames), *(value[frames] for value in self[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class DriverState:
    """The state of a session's driver, one frame each.

    `first`: the head motion of the first frame; `head` and `tokens`: head motion and motion tokens of the last
    frame with a face; `calm`: that head motion, smoothed.
    """

    first: HeadMotion
    head: HeadMotion
    tokens: Tensor
    calm: HeadMotion


def extract_motion_features(components: Components, frames: Tensor, has_face: Tensor) -> MotionFeatures:
    """Extract the features of driving frames uint8 (N, H, W, 3); `has_face` (N,) bool: where a face was found."""
    pixels = preprocess_driving(frames)
    height, width = pixels.shape[2:]
    head = components.motion_extractor(
        make_driving_thumbnails(pixels, components.motion_extractor.params.image_size)
    )
    boxes = compute_face_boxes(transform_keypoints(head), height, width)
    crops, valid = crop_faces(pixels, boxes, components.motion_encoder.params.image_size)
    return MotionFeatures(
        head, components.motion_encoder(crops.to(components.dtype)), boxes, valid & has_face
    )


def repeat_last(driver: DriverState, frames: int) -> MotionFeatures:
    """Return the features of frames without a face, on which a step holds the driver's last motion."""
    device = driver.tokens.device
    return MotionFeatures(
        driver.head.map(lambda value: value.expand(frames, *value.shape[1:])),
        driver.tokens.expand(frames, -1, -1),
        torch.zeros(frames, 4, dtype=torch.int64, device=device),
        torch.zeros(frames, dtype=torch.bool, device=device),
    )


def hold_last(features: MotionFeatures, before: DriverState | None) -> tuple[HeadMotion, Tensor]:
    """Return all frames' head motion and tokens; a frame without a face gets those of the last one with a face.

    At a session's start, frames before the first one with a face get that one's. There must be one then.
    """
    valid = features.valid
    place = torch.arange(1, len(valid) + 1, device=valid.device)
    source = torch.where(valid, place, 0).cummax(0).values
    if before is None:
        first = torch.where(valid, place, len(valid) + 1).min()
        source = torch.where(source > 0, source, first) - 1
        return features.head.select(source), features.tokens[source]
    head = HeadMotion(*(torch.cat(pair) for pair in zip(before.head, features.head, strict=True)))
    return head.select(source), torch.cat([before.tokens, features.tokens])[source]


def smooth(head: HeadMotion, before: HeadMotion | None, smoothing: float) -> HeadMotion:
    """Smooth angles, scale and translation by an exponential mean over time.

    `smoothing` 0…1; at 0 the motion is unchanged. Without a frame before, the first frame takes its place.
    """
    if smoothing == 0:
        return head
    keep = _MAX_SMOOTHING * smoothing
    count, device = len(head.pitch), head.pitch.device
    # y_i = keep^(i+1) · y_before + (1 - keep) · Σ_j≤i keep^(i-j) · x_j, as one product for all frames.
    age = torch.arange(count, device=device)[:, None] - torch.arange(-1, count, device=device)
    share = torch.where(age >= 0, keep ** age.clamp(min=0).float(), 0.0)
    share[:, 1:] *= 1 - keep

    def mean(now: Tensor, past: Tensor) -> Tensor:
        values = (
            torch.cat([past[:1], now]).flatten(1) if now.ndim > 1 else torch.cat([past[:1], now])[:, None]
        )
        return (share[..., None] * values).sum(dim=1).view_as(now)

    past = before if before is not None else head.select(slice(0, 1))
    angles = {name: mean(getattr(head, name), getattr(past, name)) for name in ("pitch", "yaw", "roll")}
    return head._replace(
        scale=mean(head.scale, past.scale), translation=mean(head.translation, past.translation), **angles
    )
