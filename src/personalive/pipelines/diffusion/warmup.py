"""The first steps of an engine, run while it loads, so that no user waits for compiling, tuning and recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from personalive.pipelines.base import LoadProgressCallback
from personalive.pipelines.diffusion.networks.denoising_unet import concat_banks
from personalive.pipelines.diffusion.parameters import PersonaLiveRunParameters
from personalive.pipelines.diffusion.sampling.engine import (
    DiffusionEngine,
    DrivingFrames,
    SessionState,
    StepInput,
    StepOutput,
)
from personalive.pipelines.diffusion.sampling.noise import SeededNoise
from personalive.pipelines.diffusion.sampling.reference import FusedReference, fuse_reference
from personalive.pipelines.diffusion.sampling.window import compute_keyframe_banks
from personalive.pipelines.diffusion.stages.acceleration import GraphedStages
from personalive.pipelines.diffusion.stages.motion_features import MotionFeatures

PROGRESS_STAGE = "preparing the first frames"


def warm_up(engine: DiffusionEngine, report: LoadProgressCallback | None = None) -> None:
    """Run every kind of step once: each number of sessions up to `batch_sessions`, and each number of keyframes.

    The pictures are noise, and only what is compiled and recorded is kept. Where stages are recorded, all are first
    run unrecorded. When memory runs out, the error that says so is raised.
    """
    sessions, keyframes = engine.plan.batch_sessions, engine.parameters.max_keyframes
    done, steps = 0, sessions * (keyframes + 2) + 1

    def run(passes: int) -> None:
        nonlocal done
        for _ in _run_all_shapes(engine, sessions, keyframes):
            done += 1
            if report is not None:
                report(PROGRESS_STAGE, done / (passes * steps))

    stages = engine.stages
    if isinstance(stages, GraphedStages):
        with stages.raising_out_of_memory():
            with stages.warming_up():
                run(2)
            run(2)
    else:
        run(1)
    if engine.components.device.type == "cuda":
        torch.cuda.synchronize(engine.components.device)
        torch.cuda.empty_cache()  # returns the memory that only recording needed


def _run_all_shapes(engine: DiffusionEngine, sessions: int, keyframes: int) -> Iterator[None]:
    reference = make_synthetic_reference(engine)
    with torch.inference_mode():
        compute_keyframe_banks(engine.components, reference, reference.latents)
    yield
    # The largest first, since smaller ones reuse its memory.
    for count in range(sessions, 0, -1):
        begun = with_keyframes(start_state(engine, reference), reference, keyframes)
        # A session's first step draws the poses of the whole window.
        driven = _run_step(engine, reference, begun, count)
        yield
        for number in range(keyframes, -1, -1):
            _run_step(engine, reference, with_keyframes(driven, reference, number), count)
            yield


def with_keyframes(state: SessionState, reference: FusedReference, keyframes: int) -> SessionState:
    """Return the state with that many keyframes, all copies of the reference, and no new one for nine steps."""
    banks = concat_banks([reference.banks] * (1 + keyframes)) if keyframes else reference.banks
    window = replace(state.window, keyframes=(reference.latents,) * keyframes, banks=banks, chunk=0)
    return replace(state, window=window)


def make_synthetic_reference(engine: DiffusionEngine) -> FusedReference:
    """Return a fused reference of a picture of noise."""
    height, width = engine.parameters.height, engine.parameters.width
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return fuse_reference(
        engine.components,
        noise,
        height=height,
        width=width,
        reference_id="warm-up",
        display_image=noise,
        face=None,
        allow_no_face=True,
    )


def start_state(engine: DiffusionEngine, reference: FusedReference) -> SessionState:
    """Return a session's state before its first step."""
    return engine.start_session(
        reference, SeededNoise(0).draw(engine.noise_shape(engine.scheduler.initial_frames))
    )


def _run_step(
    engine: DiffusionEngine, reference: FusedReference, state: SessionState, sessions: int
) -> SessionState:
    """Step that number of sessions once, all from the same state, and return the state afterwards."""
    device, chunk = engine.components.device, engine.scheduler.chunk_frames
    size = (engine.parameters.height, engine.parameters.width)
    frames = torch.randint(0, 256, (chunk, *size, 3), dtype=torch.uint8, device=device)
    look = DrivingFrames(frames, torch.ones(chunk, dtype=torch.bool, device=device))
    noise = SeededNoise(1).draw(engine.noise_shape(chunk))
    return step_with_faces(engine, reference, [state] * sessions, [look] * sessions, noise)[0].state


def step_with_faces(
    engine: DiffusionEngine,
    reference: FusedReference,
    states: Sequence[SessionState],
    driving: Sequence[DrivingFrames],
    noise: Tensor,
    parameters: PersonaLiveRunParameters | None = None,
) -> list[StepOutput]:
    """Step each state once on its driving frames, as if all of them showed the reference's own face.

    The motion networks run on synthetic frames all the same, but may find no face in them, which changes a step.
    """
    seen = engine.extract_motion_features(driving)
    run = parameters or PersonaLiveRunParameters()
    outputs = engine.step(
        [
            StepInput(reference, state, _with_faces(each, reference), noise, run)
            for state, each in zip(states, seen, strict=True)
        ]
    )
    return [output for output in outputs if output is not None]


def _with_faces(features: MotionFeatures, reference: FusedReference) -> MotionFeatures:
    """Return the features as if every frame had shown the reference's own face."""
    count = len(features.valid)
    head = reference.head.map(lambda value: value.expand(count, *value.shape[1:]))
    return features._replace(
        head=head, tokens=reference.motion.expand(count, -1, -1), valid=torch.ones_like(features.valid)
    )
