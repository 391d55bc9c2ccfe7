"""A whole bench of the pipeline: loading, first frames, steps by number of keyframes and of sessions, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from personalive.pipelines.base import FrameState, ProgressReport
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, random_models
from personalive.pipelines.diffusion.device.allocator import let_segments_grow
from personalive.pipelines.diffusion.device.devices import device_of, dtype_of
from personalive.pipelines.diffusion.memory.fallback import fitted
from personalive.pipelines.diffusion.memory.plan import MemoryPlan
from personalive.pipelines.diffusion.memory.planner import plans_unread
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.profiling.engine_benchmark import (
    Bench,
    device_name,
    held_memory,
    peak_memory,
)
from personalive.pipelines.diffusion.profiling.session_benchmark import SessionBench
from personalive.pipelines.diffusion.profiling.step_times import StepTimes
from personalive.pipelines.diffusion.stages.acceleration import ReplayedStages

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure: weights of a set, or random ones of that `random` size; medians over `steps` steps.

    `whole`: steps as sessions run them, beside those of the networks alone. `warmup` steps before those do not
    count; by default five, and one on a CPU, whose clock and libraries need no more.
    """

    parameters: PersonaLiveLoadParameters
    random: str | None
    whole: bool = True
    keyframes: Sequence[int] = (0,)
    sessions: Sequence[int] = (1,)
    steps: int = 30
    warmup: int | None = None


@dataclass(frozen=True, slots=True)
class BenchRow:
    """Steps of as many sessions with as many keyframes: as sessions run them, and of the networks alone."""

    whole: StepTimes | None
    networks: StepTimes


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What came of it. Seconds, GB, and what it was measured on and with.

    `load_seconds`: reading or making the weights; `warm_up_seconds`: until the first frame could come, which is
    shorter at a second start; `first_chunk_seconds`: from a fused reference to its first frames; `peak_gb`: the
    most that tensors took; `held_gb`: what is kept of the GPU while streaming, the recordings' own memory included;
    `memory_plan`, `memory_note`, `planned_gb`: what was given up for memory and how much that was expected to take;
    `recorded`: how many recordings each stage has;
    `faces`: the share of the whole steps' frames in which a face was found, None where none were measured.
    """

    device: str
    torch: str
    weights: str
    settings: dict[str, object]
    mode: str
    load_seconds: float
    warm_up_seconds: float
    fuse_seconds: float
    first_chunk_seconds: float
    peak_gb: float
    held_gb: float
    memory_plan: str
    memory_note: str
    planned_gb: float
    recorded: dict[str, int]
    faces: float | None
    steps: tuple[BenchRow, ...]


def run(plan: BenchPlan, report: ProgressReport | None = None) -> BenchResult:
    """Load, and measure everything in turn. Raises what loading raises."""
    device = device_of(plan.parameters.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def warmed_up(pipeline: PersonaLivePipeline) -> tuple[PersonaLivePipeline, float, float]:
        read = time.perf_counter()
        pipeline.warm_up(report)
        return pipeline, read, time.perf_counter()

    started = time.perf_counter()
    pipeline, read, warmed = loaded(plan, device, warmed_up)
    with pipeline:
        engine = pipeline.engine
        bench = Bench(engine)
        fused = time.perf_counter()
        first = bench.first_chunk()
        whole = SessionBench(pipeline) if plan.whole else None
        steps = tuple(
            _row(plan, bench, whole, sessions, keyframes)
            for sessions in plan.sessions
            for keyframes in plan.keyframes
        )
        bench.close()
        return BenchResult(
            device=device_name(device),
            torch=torch.__version__,
            weights=f"random, {plan.random}" if plan.random else "a set on disk",
            settings=_settings(plan.parameters),
            mode=engine.mode,
            load_seconds=read - started,
            warm_up_seconds=warmed - read,
            fuse_seconds=fused - warmed,
            first_chunk_seconds=first,
            peak_gb=peak_memory(device),
            held_gb=held_memory(device),
            memory_plan=engine.plan.name,
            memory_note=engine.plan.sentence,
            planned_gb=engine.plan.need / 1e9,
            recorded=stages.counts() if isinstance(stages := bench.stages, ReplayedStages) else {},
            faces=None if whole is None else _share_of_faces(whole),
            steps=steps,
        )


def _row(
    plan: BenchPlan, bench: Bench, whole: SessionBench | None, sessions: int, keyframes: int
) -> BenchRow:
    warmup = plan.warmup
    if warmup is None:
        warmup = 1 if device_of(plan.parameters.device).type == "cpu" else 5

    def measured(one: Bench | SessionBench) -> StepTimes:
        return one.measure(sessions=sessions, keyframes=keyframes, steps=plan.steps, warmup=warmup)

    networks = measured(bench)
    return BenchRow(None if whole is None else measured(whole), networks)


def _share_of_faces(whole: SessionBench) -> float:
    found = whole.seen[FrameState.ANIMATED] + whole.seen[FrameState.TRANSITION]
    return found / max(whole.seen.total(), 1)


def loaded(plan: BenchPlan, device: torch.device, then: Callable[[PersonaLivePipeline], T]) -> T:
    """What `then` makes of the pipeline; see `PersonaLivePipeline.read`."""
    parameters = plan.parameters
    if plan.random is None:
        return PersonaLivePipeline.read(parameters, then=then)
    let_segments_grow(device)
    variant, dtype = VARIANTS[plan.random], dtype_of(parameters.dtype, device)

    def made(memory: MemoryPlan) -> T:
        models = random_models(
            variant, device=device, dtype=dtype, shelved=memory.waiting, on_host=memory.on_host
        )
        return then(PersonaLivePipeline(models, parameters, memory))

    plans = plans_unread(variant, parameters, dtype, device)
    return fitted(device, plans, parameters.low_vram, made)


def _settings(parameters: PersonaLiveLoadParameters) -> dict[str, object]:
    """The parameters that are not at their default, without anything of this machine's files."""
    changed = parameters.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in changed.items() if name != "weights"}
