"""A benchmark of the whole pipeline: loading, first frames, steps by numbers of keyframes and sessions, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from personalive.pipelines.base import FrameState, LoadProgressCallback
from personalive.pipelines.diffusion.checkpoints.random_weights import (
    VARIANTS,
    build_meta_networks,
    build_random_components,
)
from personalive.pipelines.diffusion.device.devices import resolve_device, resolve_dtype
from personalive.pipelines.diffusion.memory.allocator import enable_expandable_segments
from personalive.pipelines.diffusion.memory.fallback import build_with_fallback
from personalive.pipelines.diffusion.memory.plan import MemoryPlan
from personalive.pipelines.diffusion.memory.planner import make_plans_for_set
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.profiling.engine_benchmark import (
    EngineBenchmark,
    device_name,
    peak_memory_gb,
    reserved_memory_gb,
)
from personalive.pipelines.diffusion.profiling.session_benchmark import SessionBenchmark
from personalive.pipelines.diffusion.profiling.step_times import StepTimes
from personalive.pipelines.diffusion.stages.acceleration import GraphedStages

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BenchmarkConfig:
    """What to measure: a set of weights, or random ones of the size `random`; medians over `steps` steps.

    `whole`: measure steps as sessions run them too, besides those of the networks alone. `warmup`: the number of
    steps before these that do not count; by default five, and one on a CPU, which needs no more.
    """

    parameters: PersonaLiveLoadParameters
    random: str | None
    whole: bool = True
    keyframes: Sequence[int] = (0,)
    sessions: Sequence[int] = (1,)
    steps: int = 30
    warmup: int | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """Times of steps with one number of sessions and keyframes: as sessions run them, and of the networks alone."""

    whole: StepTimes | None
    networks: StepTimes


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """The results in seconds and GB, with the device and the settings that they were measured with.

    `load_seconds`: reading or making the weights; `warm_up_seconds`: from then until a first frame is possible,
    shorter at a second start; `first_chunk_seconds`: from a fused reference to its first frames; `peak_gb`: the
    most that tensors took; `held_gb`: GPU memory that is held while streaming, including that of the recordings;
    `memory_plan`, `memory_note`, `planned_gb`: what was given up for memory, and what that was expected to take;
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
    steps: tuple[BenchmarkRow, ...]


def run_benchmark(config: BenchmarkConfig, report: LoadProgressCallback | None = None) -> BenchmarkResult:
    """Load the pipeline, and measure everything in turn. Raises the errors of loading."""
    device = resolve_device(config.parameters.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def warmed_up(pipeline: PersonaLivePipeline) -> tuple[PersonaLivePipeline, float, float]:
        read = time.perf_counter()
        pipeline.warm_up(report)
        return pipeline, read, time.perf_counter()

    started = time.perf_counter()
    pipeline, read, warmed = load_and_build(config, device, warmed_up)
    with pipeline:
        engine = pipeline.engine
        benchmark = EngineBenchmark(engine)
        fused = time.perf_counter()
        first = benchmark.measure_first_chunk()
        whole = SessionBenchmark(pipeline) if config.whole else None
        steps = tuple(
            _measure_row(config, benchmark, whole, sessions, keyframes)
            for sessions in config.sessions
            for keyframes in config.keyframes
        )
        benchmark.close()
        return BenchmarkResult(
            device=device_name(device),
            torch=torch.__version__,
            weights=f"random, {config.random}" if config.random else "a set on disk",
            settings=_changed_settings(config.parameters),
            mode=engine.mode,
            load_seconds=read - started,
            warm_up_seconds=warmed - read,
            fuse_seconds=fused - warmed,
            first_chunk_seconds=first,
            peak_gb=peak_memory_gb(device),
            held_gb=reserved_memory_gb(device),
            memory_plan=engine.plan.name,
            memory_note=engine.plan.description,
            planned_gb=engine.plan.need / 1e9,
            recorded=stages.count_graphs()
            if isinstance(stages := benchmark.untimed_stages, GraphedStages)
            else {},
            faces=None if whole is None else _compute_face_share(whole),
            steps=steps,
        )


def _measure_row(
    config: BenchmarkConfig,
    benchmark: EngineBenchmark,
    whole: SessionBenchmark | None,
    sessions: int,
    keyframes: int,
) -> BenchmarkRow:
    warmup = config.warmup
    if warmup is None:
        warmup = 1 if resolve_device(config.parameters.device).type == "cpu" else 5

    def measured(one: EngineBenchmark | SessionBenchmark) -> StepTimes:
        return one.measure(sessions=sessions, keyframes=keyframes, steps=config.steps, warmup=warmup)

    networks = measured(benchmark)
    return BenchmarkRow(None if whole is None else measured(whole), networks)


def _compute_face_share(whole: SessionBenchmark) -> float:
    found = whole.state_counts[FrameState.ANIMATED] + whole.state_counts[FrameState.TRANSITION]
    return found / max(whole.state_counts.total(), 1)


def load_and_build(
    config: BenchmarkConfig, device: torch.device, build: Callable[[PersonaLivePipeline], T]
) -> T:
    """Load the pipeline and return what `build` makes of it; see `PersonaLivePipeline.load_and_build`."""
    parameters = config.parameters
    if config.random is None:
        return PersonaLivePipeline.load_and_build(parameters, build=build)
    enable_expandable_segments(device)
    variant, dtype = VARIANTS[config.random], resolve_dtype(parameters.dtype, device)

    def made(memory: MemoryPlan) -> T:
        models = build_random_components(
            variant, device=device, dtype=dtype, offloaded=memory.waiting, on_host=memory.host_networks
        )
        return build(PersonaLivePipeline(models, parameters, memory))

    plans = make_plans_for_set(build_meta_networks(variant), parameters, dtype, device)
    return build_with_fallback(device, plans, parameters.low_vram, made)


def _changed_settings(parameters: PersonaLiveLoadParameters) -> dict[str, object]:
    """Return the parameters that are not at their default, without paths of this machine."""
    changed = parameters.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in changed.items() if name != "weights"}
