"""`personalive bench`: measures how fast the diffusion pipeline is here, and where the time is spent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.set_options import parse_settings
from personalive.cli.text_layout import format_table, terminal_width, wrap
from personalive.cli.weights import RandomSetSize
from personalive.errors import InputError, PipelineUnavailableError

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
    from personalive.pipelines.diffusion.profiling.benchmark import BenchmarkResult, BenchmarkRow

EPILOG = """Examples:

personalive bench

personalive bench --random released --keyframes 0 --keyframes 3 --sessions 1 --sessions 4

personalive bench --set compile=off --set vae=tiny --json bench.json

personalive bench --networks --steps 1000

personalive bench --share

A step is measured as in a session: the sample portrait, driven by the sample clip, whose faces are detected on a
thread ahead of the step. Beside it is the time of the networks alone, on synthetic frames without faces.

Without downloaded weights, random ones are measured: they take as long as real ones of their size.

--share is for publishing how fast a card is: stdout then has one row of a Markdown table
(docs/reference/cards.md has its columns), stderr says what is in it and where to send it. It holds the card, its
driver, the operating system, versions, the settings that differ from their defaults, and times; no names of you,
your machine or its folders, no serial numbers.
"""


def bench(
    *,
    random: Annotated[
        RandomSetSize | None,
        typer.Option(
            help="Use random weights of this size. Default: the downloaded weights; without them random ones, "
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
        list[int] | None, typer.Option(min=0, max=3, help="Number of history keyframes; may be repeated.")
    ] = None,
    sessions: Annotated[
        list[int] | None, typer.Option(min=1, max=4, help="Number of concurrent sessions; may be repeated.")
    ] = None,
    networks: Annotated[
        bool,
        typer.Option("--networks", help="Measure the networks alone: synthetic frames, no face detection."),
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to take medians of.")] = 30,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write everything as JSON.")
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share", help="Print a Markdown row to send to the project instead, without personal data."
        ),
    ] = False,
) -> None:
    """Measure the personalive pipeline on this machine: each stage, frames per second, memory, start-up."""
    from personalive.cli import console
    from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
    from personalive.pipelines.parameters import build_parameters

    if json_file is not None:
        _check_writable(json_file)
    given = parse_settings(settings)
    if weights is not None:
        given["weights"] = weights
    parameters = build_parameters(PersonaLiveLoadParameters, given)
    measured_random = str(random) if random else _fallback_random_size(parameters)
    from personalive.pipelines.diffusion.profiling.benchmark import BenchmarkConfig, run_benchmark

    if measured_random:
        console.print_status(
            f"Random weights of the {measured_random} size: the speed is theirs, the picture is noise."
        )
    result = run_benchmark(
        BenchmarkConfig(
            parameters,
            measured_random,
            whole=not networks,
            keyframes=tuple(dict.fromkeys(keyframes or [0])),
            sessions=tuple(dict.fromkeys(sessions or [1])),
            steps=steps,
        ),
        lambda stage, done: console.print_status(f"{stage}: {100 * done:.0f} %"),
    )
    if share:
        from personalive.cli import share_results

        rows = share_results.table_rows(result, share_results.describe_machine(parameters.device))
        for row in rows:
            typer.echo(share_results.format_row(row.values()))
        header, place = share_results.format_header(rows[0]), share_results.issue_tracker()
        console.print_status(share_results.ADVICE.format(columns=header, place=place))
    else:
        typer.echo(format_result(result))
    if json_file is not None:
        _write_json(json_file, result)


def _fallback_random_size(parameters: PersonaLiveLoadParameters) -> str | None:
    """Return the size of random weights to use where the wanted weights are missing; None where they exist."""
    from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline

    state = PersonaLivePipeline.availability_with({"weights": parameters.weights})
    if state.ready:
        return None
    if parameters.weights is not None or state.reason.endswith("is not installed"):
        raise PipelineUnavailableError(f"The PersonaLive pipeline cannot be loaded: {state.message}")
    from personalive.pipelines.diffusion.device.devices import resolve_device

    return "released" if resolve_device(parameters.device).type == "cuda" else "small"


def format_result(result: BenchmarkResult) -> str:
    """Format the whole result for people to read."""
    settings = ", ".join(f"{name}={value}" for name, value in result.settings.items())
    head = [
        f"{result.device}, torch {result.torch}, weights: {result.weights}, compile: {result.mode}",
        f"settings: {settings}" if settings else "settings: defaults",
        f"loading {result.load_seconds:.1f} s, warm-up {result.warm_up_seconds:.1f} s, fusing a reference "
        f"{1000 * result.fuse_seconds:.0f} ms, first frames {1000 * result.first_chunk_seconds:.0f} ms, "
        f"peak memory {result.peak_gb:.2f} GB"
        + (f", held {result.held_gb:.2f} GB" if result.held_gb else ""),
    ]
    recorded = ", ".join(f"{name} {count}" for name, count in result.recorded.items()) or "nothing"
    head.append(
        f"memory plan {result.memory_plan}: {result.memory_note} "
        f"({result.planned_gb:.2f} GB planned); recorded: {recorded}"
    )
    if result.faces is not None and result.faces < 1:
        head.append(f"a face was found in {100 * result.faces:.1f} % of the driving frames")
    width = terminal_width(sys.stdout)
    lines = [wrap(line, width, hanging=2) for line in head]
    return "\n".join([*lines, *("\n" + _format_row(row) for row in result.steps)])


def _format_row(row: BenchmarkRow) -> str:
    times, networks = row.whole or row.networks, row.networks
    many = "session" if times.sessions == 1 else "sessions at once"
    each = " each" if times.sessions > 1 else ""
    head = (
        f"{times.sessions} {many}, {times.keyframes} keyframes, {times.steps} steps: {times.median_ms:.1f} ms "
        f"(p99 {times.p99_ms:.1f}, fastest {times.fastest_ms:.1f}), {times.fps_each:.1f} frames per second{each}"
    )
    names = ["stage", "ms", "share"]
    if row.whole is not None:
        head += f"; the networks alone: {networks.median_ms:.1f} ms, {networks.fps_each:.1f}{each}"
        names.append("alone, ms")
    width = terminal_width(sys.stdout)
    rows = [[*names, "% of floor"]]
    for stage, alone in zip(times.stages, networks.stages, strict=True):
        cells = [stage.name, f"{stage.ms:.2f}", f"{100 * stage.share:.0f} %"]
        if row.whole is not None:
            cells.append(f"{alone.ms:.2f}")
        rows.append([*cells, f"{100 * alone.ms / alone.floor_ms:.0f}" if alone.floor_ms else ""])
    placed = format_table(
        [[name.ljust(16), *(f"{cell:>10}" for cell in cells)] for name, *cells in rows], width
    )
    return f"{wrap(head, width, hanging=2)}\n{placed}"


def _check_writable(path: Path) -> None:
    """Raise an error before measuring where the file could not be written afterwards."""
    from personalive.media.output import check_parent

    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file for --json.")
    check_parent(path)


def _write_json(path: Path, result: BenchmarkResult) -> None:
    import dataclasses
    import json

    try:
        path.write_text(json.dumps(dataclasses.asdict(result), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
