from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.preprocessing.keypoints import transform_keypoints
from personalive.pipelines.diffusion.sampling.engine import (
    DiffusionEngine,
    DrivingFrames,
    SessionState,
    StepInput,
    StepOutput,
)
from personalive.pipelines.diffusion.sampling.noise import SeededNoise
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.stages.motion_features import smooth
from tests.pipelines.diffusion.streams import CHUNK, SIDE, frames, part

DEFAULT = PersonaLiveRunParameters()


@pytest.fixture(scope="module")
def engine(models: Components, set_to: PersonaLiveLoadParameters) -> DiffusionEngine:
    return DiffusionEngine(models, set_to)


class Stages:
    """Keeps what a step tells of its stages."""

    def __init__(self) -> None:
        self.told: dict[str, Tensor] = {}

    def __call__(self, stage: str, value: Tensor) -> None:
        self.told[stage] = value


def look(found: Sequence[bool], index: int = 0) -> DrivingFrames:
    return DrivingFrames(torch.from_numpy(frames(1, CHUNK, CHUNK * index)), torch.tensor(found))


def begun(engine: DiffusionEngine, reference: FusedReference) -> SessionState:
    return engine.start_session(
        reference, SeededNoise(0).draw(engine.noise_shape(engine.scheduler.initial_frames))
    )


def step(
    engine: DiffusionEngine,
    reference: FusedReference,
    driving: Any,
    state: SessionState | None = None,
    parameters: PersonaLiveRunParameters = DEFAULT,
    trace: Stages | None = None,
) -> StepOutput | None:
    noise = SeededNoise(1).draw(engine.noise_shape(CHUNK))
    return engine.step(
        [StepInput(reference, state or begun(engine, reference), driving, noise, parameters, trace)]
    )[0]


def sure(output: StepOutput | None) -> StepOutput:
    assert output is not None
    return output


def moved(motion: DrivingMotion, index: int = 0) -> Any:
    return part(motion, index).to_features(torch.device("cpu"), torch.float32)


def test_nothing_begins_before_a_face_is_found(engine: DiffusionEngine, reference: FusedReference) -> None:
    assert step(engine, reference, look([False] * 4)) is None
    output = sure(step(engine, reference, look([False, False, True, False])))
    assert output.valid.tolist() == [False, False, True, False]
    assert (output.images.shape, output.images.dtype) == ((CHUNK, SIDE, SIDE, 3), torch.uint8)


def test_sessions_that_wait_do_not_disturb_those_that_run(
    engine: DiffusionEngine, reference: FusedReference
) -> None:
    noise, state = SeededNoise(1).draw(engine.noise_shape(CHUNK)), begun(engine, reference)
    inputs = [
        StepInput(reference, state, look(found), noise, DEFAULT)
        for found in ([False] * 4, [True] * 4, [False] * 4)
    ]
    outputs = engine.step(inputs)
    assert [output is None for output in outputs] == [True, False, True]
    alone = sure(step(engine, reference, look([True] * 4)))
    assert (sure(outputs[1]).images.int() - alone.images.int()).abs().max() <= 1


def test_a_frame_without_a_face_is_shown_with_the_last_good_motion(
    engine: DiffusionEngine, reference: FusedReference
) -> None:
    first = sure(step(engine, reference, look([True, True, False, False])))
    tokens = first.state.window.motion
    assert tokens is not None
    assert torch.equal(tokens[-1], tokens[-3])
    assert torch.equal(tokens[-2], tokens[-3])
    assert not torch.equal(tokens[-4], tokens[-3])
    held = sure(step(engine, reference, look([False] * 4, index=1), first.state))
    later = held.state.window.motion
    assert later is not None
    assert torch.equal(later[-4:], tokens[-3:-2].expand(4, -1, -1))
    assert held.valid.tolist() == [False] * 4
    assert held.state.driver is not None
    assert first.state.driver is not None
    assert torch.equal(held.state.driver.tokens, first.state.driver.tokens)
    assert torch.equal(held.state.driver.head.yaw, first.state.driver.head.yaw)


@pytest.mark.slow
def test_expression_0_keeps_the_references_own_and_1_is_the_drivers(
    engine: DiffusionEngine, reference: FusedReference, motion: DrivingMotion
) -> None:
    def tokens(expression: float) -> Tensor:
        parameters = PersonaLiveRunParameters(expression=expression)
        window = sure(step(engine, reference, moved(motion), parameters=parameters)).state.window
        assert window.motion is not None
        return window.motion

    own = tokens(0.0)
    assert torch.equal(own, reference.motion.expand_as(own))
    whole, half = tokens(1.0)[-CHUNK:], tokens(0.5)[-CHUNK:]
    assert torch.equal(whole, motion.tokens[:CHUNK])
    assert torch.allclose(half, (reference.motion + whole) / 2, atol=1e-4)


def drawn(
    engine: DiffusionEngine,
    reference: FusedReference,
    motion: DrivingMotion,
    state: SessionState | None = None,
    **given: Any,
) -> Tensor:
    stages = Stages()
    step(
        engine, reference, moved(motion, 1 if state else 0), state, PersonaLiveRunParameters(**given), stages
    )
    return stages.told["kps"]


def test_with_all_motion_off_the_references_own_pose_is_drawn(
    engine: DiffusionEngine, reference: FusedReference, motion: DrivingMotion
) -> None:
    points = drawn(engine, reference, motion, pose=0, translation=0, scale=0)
    assert points.shape == (16, 21, 3)
    assert torch.equal(points, transform_keypoints(reference.head).expand_as(points))


def test_turns_shifts_and_nearing_are_each_followed_by_their_own_parameter(
    engine: DiffusionEngine, reference: FusedReference, motion: DrivingMotion
) -> None:
    state = sure(step(engine, reference, moved(motion))).state
    head, now = reference.head, part(motion, 1).head
    own = transform_keypoints(head)
    shift = now.translation - motion.head.translation[:1]
    points = drawn(engine, reference, motion, state, pose=0, translation=1, scale=0)
    assert torch.allclose(points[..., :2], own[..., :2] + shift[:, None, :2], atol=1e-5)
    nearer = now.scale / motion.head.scale[:1]
    points = drawn(engine, reference, motion, state, pose=0, translation=0, scale=1)
    assert not torch.equal(points, own.expand_as(points))
    for index in range(CHUNK):
        scaled = head._replace(scale=head.scale * nearer[index])
        assert torch.allclose(points[index], transform_keypoints(scaled)[0], atol=1e-5)
    points = drawn(engine, reference, motion, state, pose=1, translation=0, scale=0)
    for index in range(CHUNK):
        turned = head._replace(
            pitch=now.pitch[index : index + 1],
            yaw=now.yaw[index : index + 1],
            roll=now.roll[index : index + 1],
        )
        assert torch.equal(points[index], transform_keypoints(turned)[0])


def test_smoothing_calms_what_is_drawn_across_chunks(
    engine: DiffusionEngine, reference: FusedReference, motion: DrivingMotion
) -> None:
    calm = PersonaLiveRunParameters(smoothing=0.6)
    first = sure(step(engine, reference, moved(motion), parameters=calm))
    second = sure(step(engine, reference, moved(motion, 1), first.state, calm))
    whole = smooth(motion.select(slice(0, 2 * CHUNK)).head, None, 0.6)
    assert second.state.driver is not None
    assert torch.allclose(second.state.driver.calm.yaw, whole.yaw[-1:], atol=1e-4)
    assert torch.equal(second.state.driver.head.yaw, motion.head.yaw[2 * CHUNK - 1 : 2 * CHUNK])
    assert torch.equal(drawn(engine, reference, motion, smoothing=0), drawn(engine, reference, motion))


def test_a_session_begins_with_a_transition_that_reaches_the_first_frame_next(
    engine: DiffusionEngine, reference: FusedReference, motion: DrivingMotion
) -> None:
    points = drawn(engine, reference, motion)
    assert torch.equal(points[0], transform_keypoints(reference.head)[0])
    steps = (points[1:13] - points[:12]).norm(dim=(1, 2))
    assert steps.max() < 2 * steps.mean() + 1e-6


def test_the_tiny_autoencoder_makes_other_pictures_of_the_same_latents(
    models: Components, set_to: PersonaLiveLoadParameters, reference: FusedReference, motion: DrivingMotion
) -> None:
    pictures, latents = [], []
    for vae in ("full", "tiny"):
        stages = Stages()
        own = DiffusionEngine(models, set_to.model_copy(update={"vae": vae}))
        pictures.append(sure(step(own, reference, moved(motion), trace=stages)).images)
        latents.append(stages.told["latents"])
    assert pictures[0].shape == pictures[1].shape
    assert not torch.equal(*pictures)
    assert torch.equal(*latents)


def test_without_the_tiny_autoencoder_its_download_is_named(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    lacking = dataclasses.replace(models, tiny_vae=None)
    with pytest.raises(InputError, match="personalive download --tiny"):
        DiffusionEngine(lacking, set_to.model_copy(update={"vae": "tiny"}))
    DiffusionEngine(lacking, set_to)


def test_attention_kernels_agree(
    models: Components,
    engine: DiffusionEngine,
    set_to: PersonaLiveLoadParameters,
    reference: FusedReference,
    motion: DrivingMotion,
) -> None:
    plain = DiffusionEngine(models, set_to.model_copy(update={"attention": "math"}))
    results = []
    for own in (engine, plain):
        stages = Stages()
        images = sure(step(own, reference, moved(motion), trace=stages)).images
        results.append((stages.told["latents"], images.numpy().astype(int)))
    # Random networks magnify what is rounded otherwise; a wrong kernel is off by as much as there is.
    assert (results[0][0] - results[1][0]).norm() < 0.05 * results[1][0].norm()
    assert np.abs(results[0][1] - results[1][1]).mean() <= 3


@pytest.mark.parametrize("kernel", ["cudnn", "efficient"])
def test_a_kernel_that_the_device_lacks_is_refused_in_a_sentence(
    models: Components, set_to: PersonaLiveLoadParameters, kernel: str
) -> None:
    with pytest.raises(
        InputError, match=f"attention={kernel} does not run on cpu .*: choose another, or auto"
    ):
        DiffusionEngine(models, set_to.model_copy(update={"attention": kernel}))
