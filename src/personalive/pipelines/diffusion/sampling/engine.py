"""The engine, which steps several sessions at once: driving frames in, animated frames and new states out.

The engine holds what sessions share, and no session's state. Everything that can be batched over sessions is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.paths import cache_dir
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.device.devices import exact_float32
from personalive.pipelines.diffusion.device.pinned_copy import to_device
from personalive.pipelines.diffusion.device.unet_streaming import StreamedUNet
from personalive.pipelines.diffusion.kernels.attention import prefer_backend
from personalive.pipelines.diffusion.kernels.dispatch import select_operations
from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS
from personalive.pipelines.diffusion.memory.plan import MemoryPlan, select_plans
from personalive.pipelines.diffusion.memory.planner import make_plans_for_components
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.preprocessing.keypoints import (
    MotionTransfer,
    interpolate,
    make_transition,
    retarget,
    transform_keypoints,
)
from personalive.pipelines.diffusion.preprocessing.pixels import frames_to_device
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.sampling.scheduler import DDIMScheduler
from personalive.pipelines.diffusion.sampling.window import WindowInput, WindowOutput, WindowState, denoise
from personalive.pipelines.diffusion.stages.acceleration import accelerate, check_compiler, resolve_mode
from personalive.pipelines.diffusion.stages.compile_cache import enable_kernel_cache
from personalive.pipelines.diffusion.stages.frame_decoder import FrameDecoder, frames_at_once, to_images
from personalive.pipelines.diffusion.stages.memory_format import StepSize, optimize
from personalive.pipelines.diffusion.stages.motion_features import (
    DriverState,
    MotionFeatures,
    hold_last,
    smooth,
)
from personalive.pipelines.diffusion.stages.quantization import quantize
from personalive.pipelines.diffusion.stages.stages import EagerStages, Stages
from personalive.pipelines.diffusion.tracking.driver_tracker import TrackedFrame

_FIRST, _LAST = slice(0, 1), slice(-1, None)

Trace = Callable[[str, Tensor], None]
"""A function for tests and tools, called with each stage's name and result."""


@dataclass(frozen=True, slots=True, eq=False)
class SessionState:
    """Everything that changes from step to step; `driver` is None until the session's first face is seen."""

    window: WindowState
    driver: DriverState | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DrivingFrames:
    """Driving frames, uint8 (M, H, W, 3); `has_face` (M,) bool: in which of them a face was found."""

    frames: Tensor
    has_face: Tensor


def to_driving_frames(tracked: Sequence[TrackedFrame], device: torch.device) -> DrivingFrames:
    """Return tracked frames as the engine takes them; they are still being copied to the device."""
    crops = np.stack([frame.crop for frame in tracked])
    found = torch.tensor([frame.has_face for frame in tracked])
    return DrivingFrames(frames_to_device(crops, device), to_device(found, device))


@dataclass(frozen=True, slots=True, eq=False)
class StepInput:
    """One session's input of a step.

    `driving`: M driving frames, or the motion features that were extracted from them before; `noise` float32
    (1, 4, M, h, w).
    """

    reference: FusedReference
    state: SessionState
    driving: DrivingFrames | MotionFeatures
    noise: Tensor
    parameters: PersonaLiveRunParameters
    trace: Trace | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepOutput:
    """One session's output of a step.

    `images` uint8 (M, H, W, 3) on the device; `valid` (M,) bool: which driving frames had a usable face.
    """

    state: SessionState
    images: Tensor
    valid: Tensor


class DiffusionEngine:
    """The networks, the noise schedule, and everything that follows from both."""

    def __init__(
        self, components: Components, parameters: PersonaLiveLoadParameters, plan: MemoryPlan | None = None
    ) -> None:
        """Prepare the networks for `parameters`.

        `plan` is one of the memory plans of `make_plans_for_components`; by default, the one `low_vram` selects.
        """
        self.components = components
        self.parameters = parameters
        self.plan = (
            plan or select_plans(make_plans_for_components(components, parameters), parameters.low_vram)[0]
        )
        self.scheduler = DDIMScheduler.build(
            parameters.temporal_adaptive_step, parameters.temporal_window_size, components.device
        )
        self._check_attention()
        folder = (
            enable_kernel_cache(cache_dir(), components.device) if components.device.type == "cuda" else None
        )
        operations = PLAIN_OPERATIONS
        with torch.no_grad(), self._attention_backend():
            if parameters.kernels == "auto":
                operations = select_operations(components.device, folder, parameters.attention)
            size = _step_size(parameters, self.plan)
            optimize(components, operations, size)
            if parameters.dtype == "float8":
                quantize(components, operations, parameters.float8_layers, size)
        self.operations = operations
        """The operations that the networks compute with."""
        decoder = FrameDecoder(components, parameters.vae, frames_at_once=self.plan.frames_at_once)
        # After everything that changes weights.
        streamed = None
        if self.plan.streamed:
            streamed = StreamedUNet(components.denoising_unet, components.device, self.plan.streamed)
        with torch.inference_mode():
            time = components.denoising_unet.compute_time_features(self.scheduler.timesteps)
        self.eager_stages = EagerStages(components, decoder, time, parameters.height, parameters.width)
        mode = resolve_mode(parameters.compile, components.device) if self.plan.recorded else "off"
        self.mode, self.warning = check_compiler(mode, components.device)
        """The acceleration (off, graphs or full), and why it is not the one asked for, or None."""
        # A recording can copy from page-locked host memory only.
        uncaptured = () if streamed is None or streamed.pinned else ("denoise",)
        self.stages: Stages = accelerate(self.eager_stages, self.mode, uncaptured)
        """The parts of a step that run on the device; may be replaced between two steps."""

    def noise_shape(self, frames: int) -> tuple[int, ...]:
        """Return the shape of the noise that a session draws for that number of frames."""
        channels = self.components.denoising_unet.params.in_channels
        return (1, channels, frames, self.parameters.height // 8, self.parameters.width // 8)

    def start_session(self, reference: FusedReference, noise: Tensor) -> SessionState:
        """Return a session's state before its first step; noise (1, 4, P, h, w), P = `scheduler.initial_frames`."""
        own = to_device(noise, self.components.device)
        return SessionState(WindowState.initial(reference, own, self.scheduler))

    @torch.inference_mode()
    def step(self, inputs: Sequence[StepInput]) -> list[StepOutput | None]:
        """Step each session once; the output is None, and the state stays, while a session has not seen a face yet.

        Sessions beyond the number that was prepared for are stepped in turn, so that nobody waits for compiling.
        """
        any_batch_size = self.mode == "off" and self.plan.recorded
        batch_size = len(inputs) if any_batch_size else self.plan.batch_sessions
        if len(inputs) > batch_size:
            parts = (inputs[begin : begin + batch_size] for begin in range(0, len(inputs), batch_size))
            return [output for part in parts for output in self.step(part)]
        extracted = iter(
            self.extract_motion_features(
                [each.driving for each in inputs if isinstance(each.driving, DrivingFrames)]
            )
        )
        with exact_float32(), self._attention_backend():
            features = [
                each.driving if isinstance(each.driving, MotionFeatures) else next(extracted)
                for each in inputs
            ]
            ready = [
                index
                for index, each in enumerate(inputs)
                if each.state.driver is not None or bool(features[index].valid.any())
            ]
            outputs: list[StepOutput | None] = [None] * len(inputs)
            if ready:
                stepped = self._animate_ready(
                    [inputs[index] for index in ready], [features[index] for index in ready]
                )
                for index, output in zip(ready, stepped, strict=True):
                    outputs[index] = output
            return outputs

    @torch.inference_mode()
    def extract_motion_features(self, driving: Sequence[DrivingFrames]) -> list[MotionFeatures]:
        """Extract the motion features of each driver's frames."""
        if not driving:
            return []
        with exact_float32(), self._attention_backend():
            everything = self.stages.encode_motion(
                torch.cat([look.frames for look in driving]), torch.cat([look.has_face for look in driving])
            )
        ends = list(itertools.accumulate(len(look.frames) for look in driving))
        return [everything.select(slice(begin, end)) for begin, end in zip([0, *ends], ends, strict=False)]

    def _animate_ready(self, inputs: list[StepInput], features: list[MotionFeatures]) -> list[StepOutput]:
        noises = [to_device(each.noise, self.components.device) for each in inputs]
        driven = [self._condition(each, seen) for each, seen in zip(inputs, features, strict=True)]
        poses = self._encode_poses([points for points, _, _ in driven], [each.trace for each in inputs])
        windows = [
            WindowInput(
                each.reference,
                each.state.window,
                motion,
                pose,
                noise,
                each.parameters.keyframe_threshold,
            )
            for each, (_, motion, _), pose, noise in zip(inputs, driven, poses, noises, strict=True)
        ]
        batch_size = self.parameters.max_keyframes
        outputs = denoise(self.components, self.stages, self.scheduler, windows, batch_size)
        images = self._decode_outputs(outputs, [each.trace for each in inputs])
        return [
            StepOutput(SessionState(output.state, driver), image, seen.valid)
            for output, image, (_, _, driver), seen in zip(outputs, images, driven, features, strict=True)
        ]

    def _condition(self, each: StepInput, features: MotionFeatures) -> tuple[Tensor, Tensor, DriverState]:
        """Return the new frames' keypoints (N, K, 3) and motion tokens (N, 32, 16), and the driver's new state.

        At a session's first step, a transition from the reference precedes them.
        """
        reference, before, set_to = each.reference, each.state.driver, each.parameters
        head, tokens = hold_last(features, before)
        calm = smooth(head, before.calm if before else None, set_to.smoothing)
        first = before.first if before else calm.select(_FIRST)
        transfer = MotionTransfer(set_to.pose, set_to.translation, set_to.scale)
        drawn = retarget(reference.head, calm, first, transfer)
        points = transform_keypoints(drawn)
        motion = tokens if set_to.expression == 1 else reference.motion.lerp(tokens, set_to.expression)
        if before is None:
            steps = self.scheduler.initial_frames
            points = torch.cat(
                [transform_keypoints(make_transition(reference.head, drawn.select(_FIRST), steps)), points]
            )
            motion = torch.cat([interpolate(reference.motion, motion[:1], steps), motion])
        if each.trace:
            each.trace("boxes", features.boxes)
            each.trace("motion", features.tokens)
            each.trace("kps", points)
        return (
            points,
            motion,
            DriverState(first, head.select(_LAST), tokens[-1:], calm.select(_LAST)),
        )

    def _encode_poses(self, points: list[Tensor], traces: list[Trace | None]) -> list[Tensor]:
        """Return the pose features (1, C, N, h, w) of each session's keypoints."""
        poses: dict[int, Tensor] = {}
        # A first step has a whole window of poses. Encoding it separately leaves fewer shapes to prepare for.
        for count in {len(each) for each in points}:
            alike = [index for index, each in enumerate(points) if len(each) == count]
            drawn = self.stages.encode_pose(torch.cat([points[index] for index in alike]))
            poses |= dict(zip(alike, drawn.split(count), strict=True))
        return [
            self._format_pose_features(points[index], poses[index], trace)
            for index, trace in enumerate(traces)
        ]

    def _format_pose_features(self, points: Tensor, pose: Tensor, trace: Trace | None) -> Tensor:
        """Return one session's features (N, C, h, w) in the window's layout (1, C, N, h, w)."""
        if trace:
            trace("canvas", self.eager_stages.pose_image(points))
            trace("pose", pose)
        return pose.transpose(0, 1)[None]

    def _decode_outputs(self, outputs: list[WindowOutput], traces: list[Trace | None]) -> list[Tensor]:
        """Decode the frames to show, uint8 (M, H, W, 3): the oldest, or younger ones in a low-latency mode."""
        chunk = self.scheduler.chunk_frames
        shown = slice(self.parameters.skipped_levels * chunk, (self.parameters.skipped_levels + 1) * chunk)
        latents = torch.cat([output.pred_original_sample[0, :, shown].transpose(0, 1) for output in outputs])
        if not any(traces):
            return list(self.stages.decode(latents).split(chunk))
        pixels = self.eager_stages.decode_pixels(latents)
        for row, (output, trace) in enumerate(zip(outputs, traces, strict=True)):
            if trace:
                own = slice(row * chunk, (row + 1) * chunk)
                trace("noise_pred", output.noise_pred)
                trace("latents", latents[own])
                trace("frames", pixels[own].permute(0, 2, 3, 1))
                trace("keyframes", torch.tensor([len(output.state.keyframes)]))
        return list(to_images(pixels).split(chunk))

    def _attention_backend(self) -> AbstractContextManager[Any]:
        return prefer_backend(self.components.device, self.parameters.attention)

    def _check_attention(self) -> None:
        """Raise `InputError` for an attention kernel that this device, type or PyTorch does not have."""
        width = (
            self.components.denoising_unet.params.block_out_channels[0]
            // self.components.denoising_unet.params.heads
        )
        tokens = torch.zeros(1, 1, 16, width, device=self.components.device, dtype=self.components.dtype)
        try:
            with self._attention_backend(), torch.inference_mode():
                torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        except RuntimeError:
            raise InputError(
                f"attention={self.parameters.attention} does not run on {self.components.device} in "
                f"{self.components.dtype}: choose another, or auto."
            ) from None


def _step_size(parameters: PersonaLiveLoadParameters, plan: MemoryPlan) -> StepSize:
    chunk, height, width = parameters.temporal_window_size, parameters.height, parameters.width
    decoded = min(plan.frames_at_once or frames_at_once("full", height * width), chunk)
    return StepSize(height, width, chunk * parameters.temporal_adaptive_step, chunk, decoded)
