"""The parts of a step that run entirely on the device: fixed shapes, tensors in and out, no waiting for results.

Only such parts can be compiled or recorded as a CUDA graph (`acceleration.py`). Everything that depends on a
session's settings or on what its frames show is computed between them, in `engine.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.networks.denoising_unet import Conditioning
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.preprocessing.pose_image import draw_pose_image
from personalive.pipelines.diffusion.stages.cuda_graphs import concat_sessions
from personalive.pipelines.diffusion.stages.frame_decoder import FrameDecoder, to_images
from personalive.pipelines.diffusion.stages.motion_features import MotionFeatures, extract_motion_features

_HEADS = len(HeadMotion._fields)


class Stages(Protocol):
    """The stages of a step. S: sessions; M: frames of a chunk; F: frames of a window."""

    def encode_motion(self, frames: Tensor, has_face: Tensor) -> MotionFeatures:
        """Extract the motion features of driving frames uint8 (N, H, W, 3); `has_face` (N,) bool."""

    def encode_pose(self, keypoints: Tensor) -> Tensor:
        """Encode keypoints (N, K, 3) to pose features (N, C, h, w)."""

    def denoise(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attention: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """Predict the noise, float32 (S, 4, F, h, w).

        latents float32 (S, 4, F, h, w); motion (S·F, tokens, width); pose (S, C, F, h, w); `attention`: for each
        session, the result of `flatten_attention` for its reference and keyframes.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Decode clean latents float32 (N, 4, h, w) to frames uint8 (N, H, W, 3)."""


def flatten_attention(banks: Sequence[KeyValue], cross: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the keys and values of banks, each (1, M, C), and cross-attention constants (1, 1, C) in one tuple."""
    return (*(tensor for pair in banks for tensor in pair), *cross)


class EagerStages:
    """The stages without acceleration; `time` are the denoising UNet's features of a window's noise levels."""

    def __init__(
        self, components: Components, decoder: FrameDecoder, time: tuple[Tensor, ...], height: int, width: int
    ) -> None:
        self.components = components
        self.unet: Callable[[Tensor, Conditioning], Tensor] = components.denoising_unet
        self.decoder: Callable[[Tensor], Tensor] = decoder
        self._time = time
        self._size = (height, width)

    def encode_motion(self, frames: Tensor, has_face: Tensor) -> MotionFeatures:
        """See `Stages`."""
        return extract_motion_features(self.components, frames, has_face)

    def pose_image(self, keypoints: Tensor) -> Tensor:
        """Draw keypoints (N, K, 3) as the pose guider takes them: float32 (N, 3, H, W) in [0, 1]."""
        return draw_pose_image(keypoints, *self._size)

    def encode_pose(self, keypoints: Tensor) -> Tensor:
        """See `Stages`."""
        return self.components.pose_guider.forward_frames(
            self.pose_image(keypoints).to(self.components.dtype)
        )

    def denoise(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attention: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """See `Stages`."""
        return self.denoise_batch(latents, motion, pose, *concat_sessions(attention))

    def denoise_batch(self, latents: Tensor, motion: Tensor, pose: Tensor, *attention: Tensor) -> Tensor:
        """Predict the noise, given the sessions' attention tensors concatenated along their first axis."""
        unet = self.components.denoising_unet
        pairs = len([layer for layer in unet.layers if layer.attention is not None])
        conditions = Conditioning(
            time=self._time,
            motion=unet.project_motion(motion),
            pose=pose,
            banks=tuple(KeyValue(attention[2 * index], attention[2 * index + 1]) for index in range(pairs)),
            cross=tuple(attention[2 * pairs :]),
        )
        return self.unet(latents.to(self.components.dtype), conditions).float()

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Decode clean latents float32 (N, 4, h, w) to pixels float32 (N, 3, H, W) in [0, 1]."""
        return self.decoder(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Stages`."""
        return to_images(self.decode_pixels(latents))


def flatten_features(features: MotionFeatures) -> tuple[Tensor, ...]:
    """Return all tensors of the features in one tuple."""
    return (*features.head, features.tokens, features.boxes, features.valid)


def unflatten_features(tensors: Sequence[Tensor]) -> MotionFeatures:
    """Return the features that `flatten_features` turned into these tensors."""
    tokens, boxes, valid = tensors[_HEADS:]
    return MotionFeatures(HeadMotion(*tensors[:_HEADS]), tokens, boxes, valid)
