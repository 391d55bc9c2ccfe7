"""The window of a session: the state that is kept between calls, and one denoising call for several sessions.

States are never changed in place. A step makes a new one, so an old one that is kept is a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.device.pinned_copy import to_host
from personalive.pipelines.diffusion.networks.denoising_unet import concat_banks
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.sampling.scheduler import DDIMScheduler
from personalive.pipelines.diffusion.stages.cuda_graphs import concat_sessions
from personalive.pipelines.diffusion.stages.stages import Stages, flatten_attention

MIN_KEYFRAME_CHUNK = 9
"""Before this chunk the window still holds frames of the transition from the reference."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowState:
    """A session's frames in the window, oldest first, and the features that they attend to.

    `latents` float32 (1, 4, P, h, w) of the P frames that stay from call to call; `motion` (P, 32, 16) and `pose`
    (1, C, P, h, w) of the same frames, None before the first call; `keyframes` the clean latents
    (1, 4, h, w) of history keyframes; `expressions` (1 + K, 512) the motion of the reference and of each keyframe;
    `banks` the keys and values of both; `chunk` the number of calls so far.
    """

    latents: Tensor
    motion: Tensor | None
    pose: Tensor | None
    keyframes: tuple[Tensor, ...]
    expressions: Tensor
    banks: tuple[KeyValue, ...]
    chunk: int = 0

    @classmethod
    def initial(cls, reference: FusedReference, noise: Tensor, scheduler: DDIMScheduler) -> WindowState:
        """Return the state before the first call: the reference at all levels but the highest.

        `noise`: (1, 4, P, h, w).
        """
        still = reference.latents[:, :, None].expand_as(noise)
        return cls(
            latents=scheduler.add_noise(still, noise),
            motion=None,
            pose=None,
            keyframes=(),
            expressions=reference.motion.float().flatten(1),
            banks=reference.banks,
        )


@dataclass(frozen=True, slots=True, eq=False)
class WindowInput:
    """What one call adds to a session's window.

    `motion` (N, 32, 16) and `pose` (1, C, N, h, w) of the new frames, N being the whole window at a session's first
    call; `noise` float32 (1, 4, M, h, w); `keyframe_threshold` the distance that makes an expression new.
    """

    reference: FusedReference
    state: WindowState
    motion: Tensor
    pose: Tensor
    noise: Tensor
    keyframe_threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class WindowOutput:
    """The result of one call for a session.

    `pred_original_sample` float32 (1, 4, F, h, w): the estimate of every frame's clean latents; `noise_pred`, of
    the same shape and type: the predicted noise ε.
    """

    state: WindowState
    pred_original_sample: Tensor
    noise_pred: Tensor


def denoise(
    components: Components,
    stages: Stages,
    scheduler: DDIMScheduler,
    inputs: Sequence[WindowInput],
    max_keyframes: int,
) -> list[WindowOutput]:
    """Denoise each session's window once, with one call of the network for each number of keyframes among them.

    Sessions in a call do not influence each other.
    """
    outputs: dict[int, WindowOutput] = {}
    for keyframes in sorted({len(each.state.keyframes) for each in inputs}):
        group = [index for index, each in enumerate(inputs) if len(each.state.keyframes) == keyframes]
        windows = [_extend_window(inputs[index], scheduler) for index in group]
        # Compared before the network runs, so that the answer has arrived long before the network is done.
        new = [
            _compare_expression(window, inputs[index].keyframe_threshold, max_keyframes)
            for window, index in zip(windows, group, strict=True)
        ]
        predicted = _predict_noise(stages, windows, [inputs[index].reference for index in group])
        for row, index in enumerate(group):
            noise = predicted[row : row + 1]
            outputs[index] = _finish_step(
                components, scheduler, inputs[index], windows[row], noise, new[row]()
            )
    return [outputs[index] for index in range(len(inputs))]


def _extend_window(added: WindowInput, scheduler: DDIMScheduler) -> WindowState:
    """Return the whole window: the frames that stayed, followed by the new ones."""
    state, reference = added.state, added.reference
    fresh = reference.latents[:, :, None].expand_as(added.noise)
    noisiest = scheduler.add_noise(fresh, added.noise, first_frame=scheduler.initial_frames)
    return replace(
        state,
        latents=torch.cat([state.latents, noisiest], dim=2),
        motion=added.motion if state.motion is None else torch.cat([state.motion, added.motion]),
        pose=added.pose if state.pose is None else torch.cat([state.pose, added.pose], dim=2),
    )


def _predict_noise(stages: Stages, windows: list[WindowState], references: list[FusedReference]) -> Tensor:
    parts = [(window.latents, window.motion, window.pose) for window in windows]
    latents, motion, pose = concat_sessions(cast("list[tuple[Tensor, Tensor, Tensor]]", parts))
    attention = [
        flatten_attention(window.banks, reference.cross_attention)
        for window, reference in zip(windows, references, strict=True)
    ]
    return stages.denoise(latents, motion, pose, attention)


def _finish_step(
    components: Components,
    scheduler: DDIMScheduler,
    added: WindowInput,
    window: WindowState,
    noise_pred: Tensor,
    is_new: bool,
) -> WindowOutput:
    """Take every frame down one level, add a keyframe if `is_new`, and drop the oldest frames."""
    clean = scheduler.pred_original_sample(window.latents, noise_pred)
    leaving = scheduler.chunk_frames
    if is_new:
        window = _add_keyframe(components, window, added.reference, clean[:, :, 0])
    assert window.motion is not None
    assert window.pose is not None
    state = replace(
        window,
        latents=scheduler.step(clean, noise_pred)[:, :, leaving:],
        motion=window.motion[leaving:],
        pose=window.pose[:, :, leaving:],
        chunk=window.chunk + 1,
    )
    return WindowOutput(state, clean, noise_pred)


def _compare_expression(window: WindowState, threshold: float, max_keyframes: int) -> Callable[[], bool]:
    """Compare the expression of the window's oldest frame with the reference's and all keyframes'.

    The function returned waits for the answer: whether the distance to all of them exceeds `threshold`. Once there
    are `max_keyframes`, nothing is compared, since no later frame could become a keyframe.
    """
    if window.chunk < MIN_KEYFRAME_CHUNK or len(window.keyframes) >= max_keyframes:
        return lambda: False
    assert window.motion is not None
    expression = window.motion[:1].float().flatten(1)
    answer = to_host((window.expressions - expression).norm(dim=1).min() > threshold)
    return lambda: bool(answer())


def _add_keyframe(
    components: Components, window: WindowState, reference: FusedReference, latents: Tensor
) -> WindowState:
    assert window.motion is not None
    return replace(
        window,
        keyframes=(*window.keyframes, latents),
        expressions=torch.cat([window.expressions, window.motion[:1].float().flatten(1)]),
        banks=concat_banks([window.banks, compute_keyframe_banks(components, reference, latents)]),
    )


def compute_keyframe_banks(
    components: Components, reference: FusedReference, latents: Tensor
) -> tuple[KeyValue, ...]:
    """Compute the keys and values of a history keyframe from its clean latents (1, 4, h, w)."""
    with components.onloaded("reference_unet"):
        banks = components.reference_unet(latents.to(components.dtype), reference.keyframe_cross_attention)
    return components.denoising_unet.project_banks(banks)
