"""`personalive bench`: how fast the diffusion pipeline is here, and where the time goes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.settings import parse_settings
from personalive.errors import InputError, PipelineUnavailableError

if TYPE_CHECKING:
    from personalive.pipelines.personalive.measuring.bench import BenchResult
    from personalive.pipelines.personalive.measuring.measure import StepTimes
    from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters

EPILOG = """Examples:

personalive bench

personalive bench --random released --keyframes 0 --keyframes 3 --sessions 1 --sessions 4

personalive bench --set compile=off --set vae=tiny --json bench.json

Without weights at hand, random ones are measured: they take as long as real ones of their size.
"""


class Size(StrEnum):
    """Sizes that random weights come in."""

    SMALL = "small"
    RELEASED = "released"


def bench(
    *,
    random: Annotated[
        Size | None,
        typer.Option(
            help="Take random weights of this size. Default: those downloaded; where there are none, random ones, "
            "released on a GPU and small elsewhere.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The weights. Default: the downloaded ones.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A load parameter of the pipeline; may be repeated."
        ),
    ] = None,
    keyframes: Annotated[
        list[int] | None, typer.Option(min=0, max=3, help="With so many history keyframes; may be repeated.")
    ] = None,
    sessions: Annotated[
        list[int] | None, typer.Option(min=1, max=4, help="So many sessions at once; may be repeated.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to take medians over.")] = 30,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON too.")
    ] = None,
) -> None:
    """Measure the personalive pipeline on this machine: each stage, frames per second, memory, starting."""
    from personalive.cli import console
    from personalive.pipelines.parameters import build
    from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters

    given = parse_settings(settings)
    if weights is not None:
        given["weights"] = weights
    parameters = build(PersonaLiveLoadParameters, {"face_detection": False, **given})
    measured_random = str(random) if random else _random_size(parameters)
    from personalive.pipelines.personalive.measuring.bench import BenchPlan, run

    if measured_random:
        console.say(
            f"Random weights of the {measured_random} size: the speed is theirs, the picture is noise."
        )
    result = run(
        BenchPlan(
            parameters,
            measured_random,
            keyframes=tuple(dict.fromkeys(keyframes or [0])),
            sessions=tuple(dict.fromkeys(sessions or [1])),
            steps=steps,
        ),
        lambda stage, done: console.say(f"{stage}: {100 * done:.0f} %"),
    )
    typer.echo(text(result))
    if json_file is not None:
        _write(json_file, result)


def _random_size(parameters: PersonaLiveLoadParameters) -> str | None:
    """Which random weights stand in where the wanted ones are not there; None where they are."""
    from personalive.pipelines.personalive.pipeline import PersonaLivePipeline

    state = PersonaLivePipeline.availability_with({"weights": parameters.weights})
    if state.ready:
        return None
    if parameters.weights is not None or state.reason.endswith("is not installed"):
        raise PipelineUnavailableError(f"The PersonaLive pipeline cannot be loaded: {state.sentence}")
    from personalive.pipelines.personalive.devices import device_of

    return "released" if device_of(parameters.device).type == "cuda" else "small"


def text(result: BenchResult) -> str:
    """Everything for people to read."""
    settings = ", ".join(f"{name}={value}" for name, value in result.settings.items())
    head = [
        f"{result.device}, torch {result.torch}, weights: {result.weights}, compile: {result.mode}",
        f"settings: {settings}" if settings else "settings: as by default",
        f"loading {result.load_seconds:.1f} s, warm-up {result.warm_up_seconds:.1f} s, fusing a reference "
        f"{1000 * result.fuse_seconds:.0f} ms, first frames {1000 * result.first_chunk_seconds:.0f} ms, "
        f"peak memory {result.peak_gb:.2f} GB"
        + (f", held {result.held_gb:.2f} GB" if result.held_gb else ""),
    ]
    return "\n".join([*head, *("\n" + _table(times) for times in result.steps)])


def _table(times: StepTimes) -> str:
    many = "session" if times.sessions == 1 else "sessions at once"
    lines = [
        f"{times.sessions} {many}, {times.keyframes} keyframes, {times.steps} steps: {times.median_ms:.1f} ms "
        f"(p99 {times.p99_ms:.1f}, fastest {times.fastest_ms:.1f}), {times.fps_each:.1f} frames per second"
        + (" each" if times.sessions > 1 else ""),
        f"  {'stage':<18}{'ms':>9}{'share':>8}{'% of floor':>12}",
    ]
    for stage in times.stages:
        floor = f"{100 * stage.ms / stage.floor_ms:.0f}" if stage.floor_ms else ""
        lines.append(f"  {stage.name:<18}{stage.ms:>9.2f}{100 * stage.share:>7.0f} %{floor:>11}".rstrip())
    return "\n".join(lines)


def _write(path: Path, result: BenchResult) -> None:
    import dataclasses
    import json

    try:
        path.write_text(json.dumps(dataclasses.asdict(result), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
