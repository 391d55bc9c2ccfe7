from __future__ import annotations

import pytest

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.sampling.window import MIN_KEYFRAME_CHUNK, WindowState
from tests.pipelines.diffusion.streams import chunk, drive, part


def sizes(window: WindowState) -> dict[str, object]:
    assert window.motion is not None
    assert window.pose is not None
    return {
        "latents": window.latents.shape,
        "motion": window.motion.shape,
        "pose": window.pose.shape,
        "memory": [window.motion.untyped_storage().nbytes() < 5 * window.motion.nbytes],
        "banks": [(pair.key.shape, pair.value.shape) for pair in window.banks],
        "expressions": window.expressions.shape,
    }


@pytest.mark.slow
def test_forty_chunks_take_no_more_memory_than_twelve(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion
) -> None:
    seen = []
    with pipeline.open_session(reference, PersonaLiveRunParameters(keyframe_threshold=0.0)) as session:
        for index in range(40):
            session.step_motion(part(motion, index % 14))
            window = session._state.window
            assert window.latents.shape[2] == 12
            assert len(window.keyframes) == min(max(index - MIN_KEYFRAME_CHUNK + 1, 0), 3)
            assert len(window.expressions) == len(window.keyframes) + 1
            seen.append(sizes(window))
        assert window.chunk == 40
    assert all(size == seen[-1] for size in seen[12:])
    assert seen[0] == seen[8]


@pytest.mark.slow
@pytest.mark.parametrize(("most", "threshold", "expected"), [(0, 0.0, 0), (1, 0.0, 1), (3, 1e9, 0)])
def test_keyframes_are_taken_of_new_expressions_and_no_more_than_allowed(
    models: Components,
    set_to: PersonaLiveLoadParameters,
    reference: FusedReference,
    aged: bytes,
    most: int,
    threshold: float,
    expected: int,
) -> None:
    with PersonaLivePipeline(models, set_to.model_copy(update={"max_keyframes": most})) as own:
        session = own.open_session(reference)
        session.restore(aged)
        session.update(PersonaLiveRunParameters(keyframe_threshold=threshold))
        for index in (9, 10):
            session.step(chunk(1, index))
        assert len(session._state.window.keyframes) == expected


def test_a_keyframe_is_a_farther_expression_than_the_threshold(
    pipeline: PersonaLivePipeline, reference: FusedReference, aged: bytes
) -> None:
    with pipeline.open_session(reference) as session:
        session.restore(aged)
        before = session._state.window
        assert before.keyframes == ()
        assert before.motion is not None
        distance = float((before.motion[0].flatten() - reference.motion.flatten()).norm())
        assert distance > 0
        for threshold, taken in ((0.99 * distance, 1), (1.01 * distance, 0)):
            session.restore(aged)
            session.update(PersonaLiveRunParameters(keyframe_threshold=threshold))
            session.step(chunk(1, 9))
            assert len(session._state.window.keyframes) == taken


def test_a_step_leaves_the_state_before_it_as_it_was(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion
) -> None:
    with pipeline.open_session(reference) as session:
        before = session._state.window
        latents = before.latents.clone()
        drive(session, motion, [0])
        assert session._state.window is not before
        assert (before.latents == latents).all()
