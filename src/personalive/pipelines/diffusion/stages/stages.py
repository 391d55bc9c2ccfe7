"""The parts of a step that run on the device from end to end: fixed shapes, tensors in and out, nothing waited for.

That is what can be compiled or recorded as a CUDA graph (`acceleration.py`). Everything that depends on a session's
settings or on what was seen lies between them, in `engine.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from personalive.pipelines.diffusion.components import Models
from personalive.pipelines.diffusion.networks.denoising_unet import Conditions
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.preprocessing.pose_image import draw_canvas
from personalive.pipelines.diffusion.stages.frame_decoder import FrameDecoder, to_images
from personalive.pipelines.diffusion.stages.motion_features import Perceived, perceive

_HEADS = len(HeadMotion._fields)


class Stages(Protocol):
    """What a step asks of the device. S sessions, M frames of a chunk, F of a window."""

    def see(self, frames: Tensor, found: Tensor) -> Perceived:
        """What driving frames uint8 (N, H, W, 3) show; `found` (N,) bool."""

    def pose(self, points: Tensor) -> Tensor:
        """Keypoints (N, K, 3) → pose features (N, C, h, w)."""

    def predict(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attended: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """The predicted noise, float32 (S, 4, F, h, w).

        latents float32 (S, 4, F, h, w); motion (S·F, tokens, width); pose (S, C, F, h, w); `attended`: for each
        session what `attended_to` makes of its reference and keyframes.
        """

    def show(self, latents: Tensor) -> Tensor:
        """Clean latents float32 (N, 4, h, w) → frames uint8 (N, H, W, 3)."""


def attended_to(banks: Sequence[KeyValue], cross: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Keys and values of the banks, each (1, M, C), and the cross-attention constants (1, 1, C), in one row."""
    return (*(tensor for pair in banks for tensor in pair), *cross)


class PlainStages:
    """The stages as the networks compute them; `time` are the denoising UNet's features of a window's levels."""

    def __init__(
        self, models: Models, decoder: FrameDecoder, time: tuple[Tensor, ...], height: int, width: int
    ) -> None:
        self.models = models
        self.unet: Callable[[Tensor, Conditions], Tensor] = models.denoising_unet
        self.decoder: Callable[[Tensor], Tensor] = decoder
        self._time = time
        self._size = (height, width)

    def see(self, frames: Tensor, found: Tensor) -> Perceived:
        """See `Stages`."""
        return perceive(self.models, frames, found)

    def canvas(self, points: Tensor) -> Tensor:
        """What the pose guider sees of keypoints (N, K, 3): float32 (N, 3, H, W) in [0, 1]."""
        return draw_canvas(points, *self._size)

    def pose(self, points: Tensor) -> Tensor:
        """See `Stages`."""
        return self.models.pose_guider.frames(self.canvas(points).to(self.models.dtype))

    def predict(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attended: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """See `Stages`."""
        return self.predict_joined(
            latents, motion, pose, *(_joined(row) for row in zip(*attended, strict=True))
        )

    def predict_joined(self, latents: Tensor, motion: Tensor, pose: Tensor, *attended: Tensor) -> Tensor:
        """The same with the sessions' tensors one after the other along their first axis."""
        unet = self.models.denoising_unet
        pairs = len([layer for layer in unet.layers if layer.attention is not None])
        conditions = Conditions(
            time=self._time,
            motion=unet.project_motion(motion),
            pose=pose,
            banks=tuple(KeyValue(attended[2 * index], attended[2 * index + 1]) for index in range(pairs)),
            cross=tuple(attended[2 * pairs :]),
        )
        return self.unet(latents.to(self.models.dtype), conditions).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents float32 (N, 4, h, w) → pixels float32 (N, 3, H, W) in [0, 1]."""
        return self.decoder(latents)

    def show(self, latents: Tensor) -> Tensor:
        """See `Stages`."""
        return to_images(self.decode(latents))


def flat(perceived: Perceived) -> tuple[Tensor, ...]:
    """All tensors of it, in one row."""
    return (*perceived.head, perceived.tokens, perceived.boxes, perceived.valid)


def perceived(tensors: Sequence[Tensor]) -> Perceived:
    """What `flat` took apart."""
    tokens, boxes, valid = tensors[_HEADS:]
    return Perceived(HeadMotion(*tensors[:_HEADS]), tokens, boxes, valid)


def _joined(row: Sequence[Tensor]) -> Tensor:
    """Sessions one after the other; nothing is copied for a single one."""
    return row[0] if len(row) == 1 else torch.cat(list(row))
