"""The window of a session: what is carried from call to call, and one denoising call for several sessions.

States are never changed in place: a step makes a new one, so that keeping an old one is a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from personalive.pipelines.diffusion.components import Models
from personalive.pipelines.diffusion.device.pinned_copy import to_host
from personalive.pipelines.diffusion.networks.denoising_unet import join_banks
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.sampling.scheduler import Schedule
from personalive.pipelines.diffusion.stages.stages import Stages, attended_to

FIRST_KEYFRAME_CHUNK = 9
"""Before, the window still holds frames of the transition from the reference."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowState:
    """A session's piles, oldest frames first, and what it attends to.

    `latents` float32 (1, 4, P, h, w) of the P frames that stay from call to call; `motion` (P, 32, 16) and `pose`
    (1, C, P, h, w) of the same frames, None before the first call; `keyframes` the clean latents
    (1, 4, h, w) of history keyframes; `expressions` (1 + K, 512) the motion of the reference and of each keyframe;
    `banks` keys and values of both; `chunk` how many calls there were.
    """

    latents: Tensor
    motion: Tensor | None
    pose: Tensor | None
    keyframes: tuple[Tensor, ...]
    expressions: Tensor
    banks: tuple[KeyValue, ...]
    chunk: int = 0

    @classmethod
    def start(cls, reference: FusedReference, noise: Tensor, schedule: Schedule) -> WindowState:
        """Before the first call: the reference at all levels but the highest; noise (1, 4, P, h, w)."""
        still = reference.latents[:, :, None].expand_as(noise)
        return cls(
            latents=schedule.noised(still, noise),
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
    """`clean` float32 (1, 4, F, h, w): the estimate of every frame's clean latents; `predicted` likewise: ε."""

    state: WindowState
    clean: Tensor
    predicted: Tensor


def denoise(
    models: Models,
    stages: Stages,
    schedule: Schedule,
    inputs: Sequence[WindowInput],
    max_keyframes: int,
) -> list[WindowOutput]:
    """One call for each session, in as few calls of the network as there are numbers of keyframes.

    Sessions in a call do not see each other.
    """
    outputs: dict[int, WindowOutput] = {}
    for keyframes in sorted({len(each.state.keyframes) for each in inputs}):
        group = [index for index, each in enumerate(inputs) if len(each.state.keyframes) == keyframes]
        windows = [_shifted(inputs[index], schedule) for index in group]
        # Asked before the network runs, so that the answer is there long before the network is done.
        new = [
            _is_new(window, inputs[index].keyframe_threshold, max_keyframes)
            for window, index in zip(windows, group, strict=True)
        ]
        predicted = _predicted(stages, windows, [inputs[index].reference for index in group])
        for row, index in enumerate(group):
            noise = predicted[row : row + 1]
            outputs[index] = _finished(models, schedule, inputs[index], windows[row], noise, new[row]())
    return [outputs[index] for index in range(len(inputs))]


def _shifted(added: WindowInput, schedule: Schedule) -> WindowState:
    """The whole window: what stayed, and the new frames behind it."""
    state, reference = added.state, added.reference
    fresh = reference.latents[:, :, None].expand_as(added.noise)
    noisiest = schedule.noised(fresh, added.noise, first=schedule.padding)
    return replace(
        state,
        latents=torch.cat([state.latents, noisiest], dim=2),
        motion=added.motion if state.motion is None else torch.cat([state.motion, added.motion]),
        pose=added.pose if state.pose is None else torch.cat([state.pose, added.pose], dim=2),
    )


def _predicted(stages: Stages, windows: list[WindowState], references: list[FusedReference]) -> Tensor:
    return stages.predict(
        _cat([window.latents for window in windows]),
        _cat([window.motion for window in windows]),
        _cat([window.pose for window in windows]),
        [
            attended_to(window.banks, reference.cross)
            for window, reference in zip(windows, references, strict=True)
        ],
    )


def _cat(parts: Sequence[Tensor | None]) -> Tensor:
    """Sessions one after the other; nothing is copied for a single one."""
    there = [part for part in parts if part is not None]
    return there[0] if len(there) == 1 else torch.cat(there)


def _finished(
    models: Models,
    schedule: Schedule,
    added: WindowInput,
    window: WindowState,
    predicted: Tensor,
    is_new: bool,
) -> WindowOutput:
    """The step down by one level, the keyframe that may come of it, and the oldest frames dropped."""
    clean = schedule.clean(window.latents, predicted)
    leaving = schedule.chunk_frames
    if is_new:
        window = _with_keyframe(models, window, added.reference, clean[:, :, 0])
    assert window.motion is not None
    assert window.pose is not None
    state = replace(
        window,
        latents=schedule.descended(clean, predicted)[:, :, leaving:],
        motion=window.motion[leaving:],
        pose=window.pose[:, :, leaving:],
        chunk=window.chunk + 1,
    )
    return WindowOutput(state, clean, predicted)


def _is_new(window: WindowState, threshold: float, max_keyframes: int) -> Callable[[], bool]:
    """Whether the window's oldest frame shows an expression unlike the reference's and all keyframes'.

    Once there are as many keyframes as may be, nothing more is compared: no later one could be taken. The function
    returned waits for the answer.
    """
    if window.chunk < FIRST_KEYFRAME_CHUNK or len(window.keyframes) >= max_keyframes:
        return lambda: False
    assert window.motion is not None
    expression = window.motion[:1].float().flatten(1)
    answer = to_host((window.expressions - expression).norm(dim=1).min() > threshold)
    return lambda: bool(answer())


def _with_keyframe(
    models: Models, window: WindowState, reference: FusedReference, clean: Tensor
) -> WindowState:
    assert window.motion is not None
    return replace(
        window,
        keyframes=(*window.keyframes, clean),
        expressions=torch.cat([window.expressions, window.motion[:1].float().flatten(1)]),
        banks=join_banks([window.banks, keyframe_banks(models, reference, clean)]),
    )


def keyframe_banks(models: Models, reference: FusedReference, clean: Tensor) -> tuple[KeyValue, ...]:
    """Keys and values of a history keyframe, from its clean latents (1, 4, h, w)."""
    with models.at_hand("reference_unet"):
        banks = models.reference_unet(clean.to(models.dtype), reference.keyframe_cross)
    return models.denoising_unet.project_banks(banks)
