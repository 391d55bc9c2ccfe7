from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import InputError
from personalive.media import Image
from personalive.pipelines.base import FrameState
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.profiling.session_benchmark import (
    ChunkPreparer,
    LoopedClip,
    SessionBenchmark,
    load_sample_clip,
)
from personalive.pipelines.diffusion.profiling.stage_timer import TimedStages, time_stages
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.session import PersonaLiveSession
from tests.pipelines.diffusion.streams import CHUNK, SIDE


@pytest.fixture
def looking(models: Components, small_set: Path) -> PersonaLivePipeline:
    """The small pipeline as it is by default: with faces looked for."""
    parameters = PersonaLiveLoadParameters(height=SIDE, width=SIDE, weights=small_set, device="cpu")
    return PersonaLivePipeline(models, parameters)


def test_a_clip_goes_there_and_back_and_its_times_go_on() -> None:
    pictures = [np.full((16, 16, 3), 10 * level, np.uint8) for level in range(5)]
    chunks = list(itertools.islice(LoopedClip(pictures, 25, CHUNK).iterate_chunks(), 4))
    times = np.concatenate([chunk.times for chunk in chunks])
    assert times == pytest.approx(np.arange(16) / 25)
    levels = [int(image[0, 0, 0]) // 10 for chunk in chunks for image in chunk.images]
    assert levels == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]


@pytest.mark.slow
def test_whole_steps_find_the_face_and_leave_the_stages_as_they_were(looking: PersonaLivePipeline) -> None:
    bench = SessionBenchmark(looking)
    stages = looking.engine.stages
    times = bench.measure(sessions=2, keyframes=1, steps=3, warmup=1)
    assert (times.sessions, times.keyframes, times.steps) == (2, 1, 3)
    assert sum(stage.ms for stage in times.stages) == pytest.approx(times.median_ms)
    assert times.fps_each == pytest.approx(1000 * CHUNK / times.median_ms)
    assert bench.state_counts.total() == 2 * 3 * CHUNK
    assert bench.state_counts[FrameState.WAITING] == bench.state_counts[FrameState.HELD] == 0
    assert looking.engine.stages is stages


def test_sessions_get_the_keyframes_that_are_asked_for(looking: PersonaLivePipeline) -> None:
    bench = SessionBenchmark(looking)
    with bench._open_session() as session:
        chunks = bench._start_session(session, 2)
        assert session.stats() == {"keyframes": 2}
        session.step(next(chunks))
        assert session.stats() == {"keyframes": 2}


def test_without_a_face_there_is_nothing_to_measure(looking: PersonaLivePipeline) -> None:
    wall = LoopedClip([np.full((96, 96, 3), level, np.uint8) for level in (90, 91, 92)], 25, CHUNK)
    bench = SessionBenchmark(looking, wall)
    with pytest.raises(InputError, match="No face was found in the driving clip"):
        bench.measure(sessions=1, keyframes=0, steps=1, warmup=0)


def test_frames_are_prepared_in_order_on_another_thread(
    pipeline: PersonaLivePipeline, reference: FusedReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[tuple[float, str]] = []
    prepare = PersonaLiveSession.prepare

    def noted(session: PersonaLiveSession, image: Image, time: float) -> None:
        prepared.append((time, threading.current_thread().name))
        prepare(session, image, time)

    monkeypatch.setattr(PersonaLiveSession, "prepare", noted)
    session = pipeline.open_session(reference)
    with session, ChunkPreparer(session, load_sample_clip(CHUNK).iterate_chunks()) as reader:
        taken = [reader.next_chunk() for _ in range(3)]
    times = [float(at) for chunk in taken for at in chunk.times]
    assert times == sorted(times)
    assert [at for at, _ in prepared[: len(times)]] == times
    assert all(name.startswith("prepare") for _, name in prepared)


def test_stages_that_are_timed_already_stay(pipeline: PersonaLivePipeline) -> None:
    engine = pipeline.engine
    with time_stages(engine) as outer, time_stages(engine) as inner:
        assert inner is outer
        assert isinstance(engine.stages, TimedStages)
    assert not isinstance(engine.stages, TimedStages)
