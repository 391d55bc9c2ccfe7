from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.pipelines.base import AnimatedChunk
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from tests.pipelines.diffusion.streams import content, drive

CHUNKS = 13


@dataclass(frozen=True)
class Run:
    """What each chunk gave, and the snapshot before each."""

    parts: list[AnimatedChunk]
    snapshots: list[bytes]


@pytest.fixture(scope="module")
def run(pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion) -> Run:
    """A session that takes every keyframe it may, and one parameter along."""
    kept = Run([], [])
    parameters = PersonaLiveRunParameters(keyframe_threshold=0.0, smoothing=0.5)
    with pipeline.open_session(reference, parameters, seed=5) as session:
        for index in range(CHUNKS):
            kept.snapshots.append(session.snapshot())
            kept.parts.extend(drive(session, motion, [index]))
        assert len(session._state.window.keyframes) == 3
    return kept


@pytest.mark.slow
def test_taking_snapshots_changes_nothing(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion, run: Run
) -> None:
    with pipeline.open_session(reference, run_parameters(run, pipeline, reference), seed=5) as session:
        assert content(drive(session, motion, range(CHUNKS))) == content(run.parts)


def run_parameters(
    run: Run, pipeline: PersonaLivePipeline, reference: FusedReference
) -> PersonaLiveRunParameters:
    """Those that a snapshot brings along."""
    with pipeline.open_session(reference) as session:
        session.restore(run.snapshots[0])
        return session.parameters


@pytest.mark.parametrize("at", [0, 1, 3, 9, 10, 11, 12])
def test_a_new_session_continues_to_the_same_bytes(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion, run: Run, at: int
) -> None:
    until = min(at + 2, CHUNKS)
    with pipeline.open_session(reference, seed=99) as session:
        drive(session, motion, [0])
        session.restore(run.snapshots[at])
        assert session.snapshot() == run.snapshots[at]
        assert content(drive(session, motion, range(at, until))) == content(run.parts[at:until])


def test_a_snapshot_stays_small(run: Run) -> None:
    sizes = [len(snapshot) for snapshot in run.snapshots]
    assert max(sizes) < 200_000
    assert len({size // 8192 for size in sizes[2:10]}) == 1


def test_a_snapshot_of_another_reference_is_refused(
    pipeline: PersonaLivePipeline, other_reference: FusedReference, run: Run
) -> None:
    with (
        pipeline.open_session(other_reference) as session,
        pytest.raises(InputError, match="another reference"),
    ):
        session.restore(run.snapshots[5])


@pytest.mark.parametrize(
    "other",
    [
        {"latency": "low"},
        {
            "temporal_window_size": 2,
            "temporal_adaptive_step": 3,
            "num_inference_steps": 3,
            "experimental": True,
        },
    ],
)
def test_a_snapshot_of_another_window_or_latency_is_refused(
    models: Components,
    set_to: PersonaLiveLoadParameters,
    reference: FusedReference,
    run: Run,
    other: dict[str, object],
) -> None:
    with (
        PersonaLivePipeline(models, set_to.model_copy(update=other)) as own,
        own.open_session(reference) as session,
        pytest.raises(InputError, match="another window or latency"),
    ):
        session.restore(run.snapshots[5])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_are_refused_and_leave_the_session_as_it_was(
    pipeline: PersonaLivePipeline, reference: FusedReference, run: Run, data: st.DataObject
) -> None:
    whole = run.snapshots[11]
    place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 4000))
    flipped = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    damaged = data.draw(st.sampled_from([whole[:place], flipped, whole + b"x"]) | st.binary(max_size=80))
    with pipeline.open_session(reference) as session:
        before = session.snapshot()
        with pytest.raises(InputError, match="no snapshot"):
            session.restore(damaged)
        assert session.snapshot() == before
