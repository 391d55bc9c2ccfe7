"""Each fused operation alone over the shapes of a step at 512×512, and the whole step, on a GPU.

    python -m benchmarks.kernels                       # every row
    python -m benchmarks.kernels --only attention      # which of PyTorch's kernels is fastest at which shape
    python -m benchmarks.kernels --step                # and the default step beside that of kernels=pytorch

Milliseconds of one call: ten calls recorded as a CUDA graph, the median of twenty replays, so launches cost nothing
and inputs larger than the cache come from memory. `floor` is the time of a copy of as many bytes as have to be read
and written at least, measured first; `×` how often the shape occurs in a step. `chosen` is what the pipeline runs:
whichever form its own, shorter measurement found faster, named beside it.

--step loads the pipeline twice, and with --always a third time with every operation fused;
they are stepped in turn. --out writes all of it as JSON, with what the pipeline measured when it was loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.kernel_rows import DEVICE, Row, half, rows
from personalive.pipelines.diffusion.kernels.attention import prefer_backend
from personalive.pipelines.diffusion.kernels.autotuned_ops import AutotunedOperations
from personalive.pipelines.diffusion.kernels.choice_cache import KernelChoiceCache
from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS, Operations
from personalive.pipelines.diffusion.kernels.selector import PYTORCH, KernelSelector, ProblemKey
from personalive.pipelines.diffusion.kernels.timing import CudaKernelTimer
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.profiling.benchmark import BenchmarkConfig, load_and_build
from personalive.pipelines.diffusion.profiling.engine_benchmark import EngineBenchmark
from personalive.pipelines.diffusion.profiling.step_times import StepTimes
from personalive.pipelines.diffusion.stages.memory_format import optimize

CALLS, REPLAYS = 10, 20
TURNS, STEPS = 3, 12

Result = TypeVar("Result")


class Noted(KernelSelector):
    """Remembers which forms it took since it was last asked."""

    taken: tuple[str, ...] = ()

    def run(self, operation: str, problem: ProblemKey, *args: Any, **kwargs: Any) -> Any:
        result = super().run(operation, problem, *args, **kwargs)
        form = self.selected(operation, problem) or PYTORCH
        if form not in self.taken:
            self.taken = (*self.taken, form)
        return result


def measure(call: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    took = []
    for _ in range(REPLAYS):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        took.append(begun.elapsed_time(ended) / CALLS)
    return float(statistics.median(took))


def copy_rate() -> float:
    """Bytes a millisecond, read and written, of a large copy."""
    source = half(1 << 28)
    target = torch.empty_like(source)
    return 2 * source.nbytes / measure(lambda: target.copy_(source))


def measured_row(row: Row, rate: float, chooser: Noted | None) -> dict[str, Any]:
    """Return what came of a row; a way that cannot be measured has its error's first words for a time."""
    found: dict[str, Any] = {"operation": row.kind, "shape": row.shape, "count": row.count, "ms": {}}
    for name, call in row.ways.items():
        if chooser is not None:
            chooser.taken = ()
        try:
            found["ms"][name] = round(measure(call), 4)
        except RuntimeError as error:
            torch.cuda.synchronize()
            found["ms"][name] = str(error).splitlines()[0][:40]
        if name == "chosen" and chooser is not None:
            found["taken"] = " + ".join(chooser.taken)
    found["floor"] = round(row.nbytes / rate, 4)
    plain, chosen = found["ms"].get("pytorch"), found["ms"].get("chosen")
    if isinstance(plain, float) and isinstance(chosen, float):
        found["ratio"] = round(chosen / plain, 3)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| operation | shape | × | PyTorch | fused | chosen | which | chosen / PyTorch | floor |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|",
    ]
    others = []
    for row in found:
        ms = row["ms"]
        if "pytorch" not in ms:
            cells = ", ".join(f"{name} {took}" for name, took in ms.items())
            others.append(f"- {row['operation']} {row['shape']}: {cells}")
            continue
        cells = " | ".join(str(ms.get(name, "")) for name in ("pytorch", "fused", "chosen"))
        lines.append(
            f"| {row['operation']} | {row['shape']} | {row['count']} | {cells} | {row.get('taken', '')} "
            f"| {row.get('ratio', '')} | {row['floor']} |"
        )
    return "\n".join([*lines, "", *others])


def operations() -> tuple[dict[str, Operations], Noted | None]:
    """Return the ways to compute, and who chooses for the last of them."""
    try:
        from personalive.pipelines.diffusion.kernels.triton_ops import TritonOperations
    except ImportError:
        return {"pytorch": PLAIN_OPERATIONS}, None
    fused, chooser = TritonOperations(), Noted(CudaKernelTimer(), KernelChoiceCache())
    return {
        "pytorch": PLAIN_OPERATIONS,
        "fused": fused,
        "chosen": AutotunedOperations(fused, chooser),
    }, chooser


@torch.inference_mode()
def alone(only: list[str] | None) -> list[dict[str, Any]]:
    """Every operation alone."""
    ways, chooser = operations()
    rate = copy_rate()
    with prefer_backend(DEVICE):
        return [measured_row(row, rate, chooser) for row in rows(ways) if not only or row.kind in only]


def steps(args: argparse.Namespace) -> dict[str, Any]:
    """Return the default step, that of kernels=pytorch and, where asked for, that of all that is fused, in turn."""
    found: dict[str, Any] = {}
    benches: dict[str, EngineBenchmark] = {}
    for name in ("measured", "pytorch", *(["always fused"] if args.always else [])):
        parameters = PersonaLiveLoadParameters(
            kernels="pytorch" if name == "pytorch" else "auto",
            weights=args.weights,
            max_keyframes=max(args.keyframes, default=0),
        )
        plan = BenchmarkConfig(parameters, None if args.weights else "released")
        pipeline = load_and_build(plan, DEVICE, lambda pipeline: pipeline)
        if name == "always fused":
            fuse_all(pipeline)
        begun = time.perf_counter()
        pipeline.warm_up()
        found[name] = {"prepared_s": round(time.perf_counter() - begun, 1), "steps": {}}
        if isinstance(chosen := pipeline.engine.operations, AutotunedOperations):
            found[name]["choices"] = {
                key: {"form": choice.implementation, "ms": dict(choice.ms)}
                for key, choice in chosen.selector.cache.items()
            }
        benches[name] = EngineBenchmark(pipeline.engine)
    for keyframes in args.keyframes:
        turns: dict[str, list[StepTimes]] = {name: [] for name in benches}
        for _ in range(TURNS):
            for name, bench in benches.items():
                turns[name].append(bench.measure(sessions=1, keyframes=keyframes, steps=STEPS, warmup=3))
        for name, times in turns.items():
            middle = sorted(times, key=lambda one: one.median_ms)[len(times) // 2]
            found[name]["steps"][str(keyframes)] = {
                "ms": round(middle.median_ms, 2),
                "turns": [round(one.median_ms, 2) for one in times],
                "stages": {stage.name: round(stage.ms, 2) for stage in middle.stages},
            }
    return found


def fuse_all(pipeline: PersonaLivePipeline) -> None:
    """Have it compute with our kernels wherever there is one."""
    from personalive.pipelines.diffusion.kernels.triton_ops import TritonOperations

    optimize(pipeline.engine.components, TritonOperations())


def show_steps(found: dict[str, Any]) -> str:
    lines = []
    for keyframes, plain in found["pytorch"]["steps"].items():
        for name, one in found.items():
            took = one["steps"][keyframes]
            parts = ", ".join(f"{stage} {ms}" for stage, ms in took["stages"].items())
            lines.append(
                f"step, {keyframes} keyframes, {name}: {took['ms']} ms (turns {took['turns']}), "
                f"{took['ms'] / plain['ms']:.3f} of kernels=pytorch; {parts}; prepared in {one['prepared_s']} s"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", action="append", help="an operation, as the table names it; may be repeated"
    )
    parser.add_argument("--step", action="store_true", help="measure whole steps too")
    parser.add_argument("--always", action="store_true", help="with --step: and with every operation fused")
    parser.add_argument("--keyframes", type=int, action="append", help="of the steps; may be repeated")
    parser.add_argument("--weights", type=Path, help="a set of weights; default: random ones, as large")
    parser.add_argument("--no-table", action="store_true", help="with --step: nothing but steps")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    args.keyframes = args.keyframes or [0]
    if not torch.cuda.is_available():
        raise SystemExit("These are measured on a CUDA device alone.")
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    device = f"{torch.cuda.get_device_name()} as capability {capability}, torch {torch.__version__}, float16"
    print(device, flush=True)
    result: dict[str, Any] = {"device": device}
    if args.step:
        result["steps"] = steps(args)
        print(show_steps(result["steps"]), flush=True)
    if not args.no_table:
        result["operations"] = alone(args.only)
        print(table(result["operations"]))
        slow = [row for row in result["operations"] if row.get("ratio", 0) > 1.03]
        print(f"\nslower than PyTorch by more than 3 %: {len(slow)} of {len(result['operations'])}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
