from __future__ import annotations

import pytest

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.profiling.engine_benchmark import (
    EngineBenchmark,
    make_synthetic_frames,
    peak_memory_gb,
)
from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine


def test_frames_are_of_the_asked_size_and_move() -> None:
    frames = make_synthetic_frames(3, 32, 48)
    assert frames.shape == (3, 32, 48, 3)
    assert (frames[0] != frames[1]).any()


@pytest.mark.slow
def test_a_step_is_its_stages_and_all_else(models: Components, set_to: PersonaLiveLoadParameters) -> None:
    engine = DiffusionEngine(models, set_to)
    stages = engine.stages
    bench = EngineBenchmark(engine)
    times = bench.measure(sessions=2, keyframes=1, steps=3, warmup=1)
    assert (times.sessions, times.keyframes, times.steps) == (2, 1, 3)
    assert sum(stage.ms for stage in times.stages) == pytest.approx(times.median_ms)
    assert all(stage.ms > 0 for stage in times.stages[:-1])
    assert times.fastest_ms <= times.median_ms <= times.p99_ms
    assert times.fps_each == pytest.approx(4000 / times.median_ms)
    assert bench.measure_first_chunk() > 0
    bench.close()
    assert engine.stages is stages
    assert peak_memory_gb(models.device) > 0.01
