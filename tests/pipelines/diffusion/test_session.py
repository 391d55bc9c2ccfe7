from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from personalive.errors import InputError, SessionClosedError
from personalive.media.types import Image
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, Session
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.engine import Trace
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.session import PersonaLiveSession
from tests.pipelines.diffusion.streams import (
    CHUNK,
    FPS,
    GREY,
    SIDE,
    chunk,
    content,
    drive,
    part,
    picture,
    told,
)

FEW = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANIMATED, HELD = FrameState.ANIMATED, FrameState.HELD
WAITING, TRANSITION = FrameState.WAITING, FrameState.TRANSITION
EAGER = PersonaLiveRunParameters(keyframe_threshold=0.0)
Act = Callable[[PersonaLiveSession], Any]


@pytest.fixture(scope="module")
def alone(pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion) -> bytes:
    """What three chunks give in a session that has the pipeline to itself."""
    with pipeline.open_session(reference, seed=7) as session:
        return content(drive(session, motion))


@pytest.fixture(scope="module")
def aged(pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion) -> bytes:
    """The snapshot of a session that has been running for long enough to have two keyframes."""
    with pipeline.open_session(reference, EAGER) as session:
        drive(session, motion, range(11))
        assert len(session._state.window.keyframes) == 2
        return session.snapshot()


def test_a_seed_gives_the_same_pixels_again_and_another_seed_others(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion, alone: bytes
) -> None:
    with pipeline.open_session(reference, seed=7) as again, pipeline.open_session(reference, seed=8) as other:
        assert content(drive(again, motion)) == alone
        assert content(drive(other, motion)) != alone


def test_without_a_seed_it_is_that_of_the_pipeline(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion
) -> None:
    with pipeline.open_session(reference) as one, pipeline.open_session(reference, seed=42) as other:
        assert content(drive(one, motion, [0])) == content(drive(other, motion, [0]))


@pytest.mark.slow
@FEW
@given(
    st.lists(
        st.sampled_from(["step", "own step", "reset", "switch", "update", "flush", "snapshot"]), max_size=6
    ),
    st.integers(0, 2**63 - 1),
)
def test_whatever_another_session_does_changes_nothing(
    pipeline: PersonaLivePipeline,
    reference: FusedReference,
    other_reference: FusedReference,
    motion: DrivingMotion,
    alone: bytes,
    acts: list[str],
    seed: int,
) -> None:
    def restored(other: PersonaLiveSession) -> None:
        other.restore(other.snapshot())

    does: dict[str, Act] = {
        "step": lambda other: other.step_motion(part(motion, 5)),
        "reset": lambda other: other.reset(),
        "switch": lambda other: other.switch_reference(other_reference),
        "update": lambda other: other.update(PersonaLiveRunParameters(expression=2, pose=0, smoothing=1)),
        "flush": lambda other: other.flush(),
        "snapshot": restored,
    }
    parts: list[AnimatedChunk] = []
    with (
        pipeline.open_session(reference, seed=7) as own,
        pipeline.open_session(reference, EAGER, seed=seed) as other,
    ):
        for act in acts:
            if act != "own step":
                does[act](other)
            elif len(parts) < 3:
                parts += drive(own, motion, [len(parts)])
        parts += drive(own, motion, range(len(parts), 3))
    assert content(parts) == alone


@pytest.mark.parametrize("act", ["reset", "switch", "flush"])
def test_after_a_reset_a_switch_or_a_flush_it_is_as_a_new_session(
    pipeline: PersonaLivePipeline,
    reference: FusedReference,
    other_reference: FusedReference,
    motion: DrivingMotion,
    alone: bytes,
    act: str,
) -> None:
    begin = other_reference if act == "switch" else reference
    with pipeline.open_session(begin, seed=7) as session:
        drive(session, motion, [3, 4])
        {"reset": session.reset, "flush": session.flush}.get(
            act, lambda: session.switch_reference(reference)
        )()
        assert content(drive(session, motion)) == alone


@pytest.mark.slow
def test_sessions_stepped_together_get_what_each_would_alone(
    pipeline: PersonaLivePipeline, reference: FusedReference, other_reference: FusedReference, aged: bytes
) -> None:
    def opened() -> list[PersonaLiveSession]:
        old = pipeline.open_session(reference)
        old.restore(aged)
        new = pipeline.open_session(other_reference, PersonaLiveRunParameters(expression=0.5), seed=3)
        young = pipeline.open_session(other_reference, seed=4)
        young.step(chunk(5, 0))
        return [old, new, young, pipeline.open_session(reference, seed=5)]

    together, apart = opened(), opened()
    for index in (1, 2):
        chunks = [chunk(driver, index) for driver in (1, 2, 3, 4)]
        many = pipeline.step_many(together, chunks)
        for one, session, given_chunk in zip(many, apart, chunks, strict=True):
            single = session.step(given_chunk)
            assert told([one]) == told([single])
            assert np.abs(one.images.astype(int) - single.images).max() <= 1
    kept = [[len(session._state.window.keyframes) for session in group] for group in (together, apart)]
    assert kept[0] == kept[1] == [3, 0, 0, 0]


def test_sessions_that_cannot_be_stepped_together_are_refused(
    pipeline: PersonaLivePipeline,
    reference: FusedReference,
    models: Components,
    set_to: PersonaLiveLoadParameters,
) -> None:
    assert pipeline.step_many([], []) == []
    one = pipeline.open_session(reference)
    with pytest.raises(InputError, match="only once at a time"):
        pipeline.step_many([one, one], [chunk(1, 0)] * 2)
    stranger = PersonaLivePipeline(models, set_to).open_session(reference)
    with pytest.raises(InputError, match="of one pipeline"):
        pipeline.step_many([one, stranger], [chunk(1, 0)] * 2)


@pytest.mark.slow
@pytest.mark.parametrize(("latency", "delay"), [("quality", 12), ("balanced", 8), ("low", 4), ("lowest", 0)])
def test_frames_leave_in_order_after_the_modes_delay(
    models: Components,
    set_to: PersonaLiveLoadParameters,
    reference: FusedReference,
    motion: DrivingMotion,
    latency: str,
    delay: int,
) -> None:
    with PersonaLivePipeline(models, set_to.model_copy(update={"latency": latency})) as own:
        session = own.open_session(reference)
        assert session.delay_frames == delay
        parts = drive(session, motion, range(4))
        rest = session.flush()
        assert (rest is None) == (delay == 0)
        assert session.flush() is None
    times, states = told(parts + ([rest] if rest is not None else []))
    assert states == [TRANSITION] * delay + [ANIMATED] * 16
    assert times == [0.0] * delay + list(motion.times[:16])
    assert sum(map(len, parts)) == 16
    assert (0 if rest is None else len(rest)) == delay


def keeper(kept: list[np.ndarray]) -> Trace:
    """Keeps the latents of the frames that leave."""

    def record(stage: str, value: Tensor) -> None:
        if stage == "latents":
            kept.append(value.numpy())

    return record


def test_a_low_latency_mode_shows_the_same_frames_a_call_sooner_and_less_finished(
    models: Components,
    set_to: PersonaLiveLoadParameters,
    pipeline: PersonaLivePipeline,
    reference: FusedReference,
    motion: DrivingMotion,
) -> None:
    seen: list[list[np.ndarray]] = []
    for own in (pipeline, PersonaLivePipeline(models, set_to.model_copy(update={"latency": "balanced"}))):
        clean: list[np.ndarray] = []
        session = own.open_session(reference, trace=keeper(clean))
        drive(session, motion, range(4))
        seen.append(clean)
    # One level earlier: the same frames, a call sooner, close to what they will be.
    for sooner, later in zip(seen[1], seen[0][1:], strict=False):
        near = np.abs(sooner - later).mean()
        assert 0 < near < np.abs(sooner - np.roll(later, 1, axis=3)).mean()


@FEW
@given(st.integers(1, 3))
def test_as_many_frames_come_out_as_went_in(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion, chunks: int
) -> None:
    with pipeline.open_session(reference) as session:
        parts = drive(session, motion, range(chunks))
        rest = session.flush()
    assert rest is not None
    times, states = told([*parts, rest])
    shown = [time for time, state in zip(times, states, strict=True) if state is not TRANSITION]
    assert shown == list(motion.times[: CHUNK * chunks])
    assert len(times) == CHUNK * chunks + 12
    assert rest.images.shape == (12, SIDE, SIDE, 3)


def test_it_waits_with_the_still_reference_until_there_is_a_face(
    models: Components, set_to: PersonaLiveLoadParameters, portrait: Image
) -> None:
    grey = FrameChunk(np.stack([GREY] * CHUNK), np.arange(CHUNK) / FPS)
    later = grey.times + CHUNK / FPS
    half = FrameChunk(np.stack([portrait[:256, 96:352], portrait[:256, 96:352] * 0 + 128] * 2), later)
    looking = set_to.model_copy(update={"face_detection": True})
    with PersonaLivePipeline(models, looking) as own, own.open_session(own.fuse(portrait)) as session:
        assert session.flush() is None
        still = session.step(grey)
        assert told([still]) == (list(grey.times), [WAITING] * CHUNK)
        assert all(np.array_equal(image, session._reference.image) for image in still.images)
        parts = [session.step(half)]
        rest = session.flush()
        assert rest is not None
        times, states = told([*parts, rest])
        assert states == [TRANSITION] * 12 + [ANIMATED, HELD] * 2
        assert times == [later[0]] * 12 + list(later)


def test_a_chunk_of_another_length_is_refused_and_changes_nothing(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion, alone: bytes
) -> None:
    with pipeline.open_session(reference, seed=7) as session:
        for count in (0, 3, 5):
            images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
            with pytest.raises(InputError, match=f"chunks of 4 frames, not {count}"):
                session.step(FrameChunk(images, np.zeros(count)))
        assert content(drive(session, motion)) == alone


def test_a_closed_session_says_so_and_may_be_closed_again(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion
) -> None:
    session = pipeline.open_session(reference)
    session.close()
    session.close()
    acts: list[Act] = [
        lambda one: one.step(chunk(1, 0)),
        lambda one: one.step_motion(part(motion, 0)),
        lambda one: one.flush(),
        lambda one: one.reset(),
        lambda one: one.snapshot(),
        lambda one: one.restore(b""),
        lambda one: one.switch_reference(reference),
        lambda one: pipeline.step_many([one], [chunk(1, 0)]),
    ]
    for act in acts:
        with pytest.raises(SessionClosedError, match="closed"):
            act(session)


def test_a_reference_of_another_size_is_refused(
    models: Components,
    set_to: PersonaLiveLoadParameters,
    pipeline: PersonaLivePipeline,
    reference: FusedReference,
) -> None:
    with PersonaLivePipeline(models, set_to.model_copy(update={"width": 128})) as wide:
        other = wide.fuse(picture(1))
    with pytest.raises(InputError, match="another size"):
        pipeline.open_session(other)
    session: Session[PersonaLiveRunParameters] = pipeline.open_session(reference)
    with pytest.raises(InputError, match="another size"):
        session.switch_reference(other)


def test_run_parameters_hold_from_the_next_step_on(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion
) -> None:
    changed = PersonaLiveRunParameters(expression=0.0)
    with pipeline.open_session(reference) as session:
        drive(session, motion, [0])
        session.update(changed)
        assert session.parameters == changed
        drive(session, motion, [1])
        tokens = session._state.window.motion
    assert tokens is not None
    same = [bool((one == reference.motion[0]).all()) for one in tokens]
    assert same[-CHUNK:] == [True] * CHUNK
    assert not any(same[-2 * CHUNK : -CHUNK])


@pytest.mark.slow
def test_a_session_with_prepared_frames_gives_the_same(
    pipeline: PersonaLivePipeline, reference: FusedReference, set_to: PersonaLiveLoadParameters
) -> None:
    parts = [chunk(1, index) for index in range(4)]
    with pipeline.open_session(reference) as session:
        expected = content([session.step(part) for part in parts])
    with pipeline.open_session(reference) as session:
        made = []
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            for ahead in (part if part is parts[0] else None, following):
                for image, time in zip(*((ahead.images, ahead.times) if ahead else ((), ())), strict=True):
                    session.prepare(image, float(time))
            if following is None:
                session.restore(session.snapshot())
            made.append(session.step(part))
        assert content(made) == expected
