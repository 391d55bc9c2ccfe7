"""`personalive batch`: runs a table of jobs and writes a report, on this machine or on a Ray cluster."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.error_handling import EXIT_INTERRUPTED
from personalive.cli.set_options import parse_settings

if TYPE_CHECKING:
    from personalive.batch.run import BatchResult

EPILOG = """Examples:

personalive batch jobs.csv --out results

personalive batch portraits/ clips/ --out results

personalive batch portrait.jpg clips/ --out results --set expression=1.3

personalive batch portraits/ clips/ --pair name --out results

personalive batch s3://bucket/jobs.parquet --out s3://bucket/results --ray auto --gpus-per-worker 0.5

JOBS is a table, .csv, .jsonl or .parquet, with the columns reference and driving, and optionally output and any
option of `personalive animate` or parameter of the pipeline (size, start, max_frames, expression …). Paths in it
are relative to the table, outputs to --out. Or name portraits and clips, each a folder or one file: every portrait
is animated with every clip, or with --pair name with the clip of the same name.

The same command continues an interrupted batch: finished jobs are skipped, others continue after their last
segment. Results, manifest.jsonl, report.html and report.json are in --out. All paths may be URLs that fsspec
supports. Exit codes: 0 all done, 2 if a job failed, 130 after Ctrl-C.
"""

_EXIT_FAILED = 2
_BYTES_PER_GB = 10**9


class PairOption(StrEnum):
    """Which clip drives which portrait."""

    EVERY = "every"
    NAME = "name"


_Jobs = Annotated[
    list[str],
    typer.Argument(metavar="JOBS", help="A table of jobs, or portraits and clips: two folders or files."),
]
_Out = Annotated[
    str, typer.Option("--out", "-o", metavar="DIR", help="Where results and report go: a folder or URL.")
]
_Pair = Annotated[
    PairOption,
    typer.Option("--pair", help="Of two folders: every portrait with every clip, or by equal names."),
]
_Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Run on this Ray cluster: auto, HOST:PORT or ray://HOST:PORT."
    ),
]
_Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", "-w", help="Workers at a time. Default: 1 here; on a cluster, what it has room for."
    ),
]
_Gpus = Annotated[
    float | None,
    typer.Option(
        help="Share of a GPU per worker, such as 0.5. Default: 1 where the cluster has GPUs, else 0."
    ),
]
_Cpus = Annotated[float, typer.Option(help="CPU cores per worker.")]
_Pipeline = Annotated[
    str | None,
    typer.Option(help="For jobs without one: auto, preview, personalive, or another. Default: auto."),
]
_Weights = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Weights of the diffusion pipeline: a folder on every machine."),
]
_Size = Annotated[
    int | None, typer.Option(help="Side of the animated frame, for jobs without a size. Default: 512.")
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any column, for jobs that do not set it; may be repeated."
    ),
]
_Segment = Annotated[
    int | None,
    typer.Option(help="Frames per segment, the most that a killed worker loses; 8 or more. Default: 128."),
]
_Attempts = Annotated[
    int, typer.Option(help="Give up a job that kills its worker this many times in a row without progress.")
]
_Retry = Annotated[bool, typer.Option("--retry-failed", help="Retry jobs that failed in an earlier run.")]
_Overwrite = Annotated[
    bool, typer.Option("--overwrite", "-y", help="Replace outputs that this batch has not made.")
]
_Cache = Annotated[
    float, typer.Option(metavar="GB", help="Disk for copies of inputs from stores, per worker.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures and errors only.")]


def batch(
    jobs: _Jobs,
    *,
    out: _Out,
    pair: _Pair = PairOption.EVERY,
    ray: _Ray = None,
    workers: _Workers = None,
    gpus_per_worker: _Gpus = None,
    cpus_per_worker: _Cpus = 1.0,
    pipeline: _Pipeline = None,
    weights: _Weights = None,
    size: _Size = None,
    settings: _Settings = None,
    segment_frames: _Segment = None,
    max_attempts: _Attempts = 3,
    retry_failed: _Retry = False,
    overwrite: _Overwrite = False,
    cache_gb: _Cache = 10.0,
    quiet: _Quiet = False,
) -> None:
    """Animate many portraits with many clips, on this machine or on a Ray cluster.

    A job that fails does not stop the others; a killed worker costs one segment.
    """
    from personalive.batch import storage
    from personalive.batch.job_list import read_jobs
    from personalive.batch.ray_executor import RayExecutorSettings
    from personalive.batch.run import BatchSettings, run_batch
    from personalive.cli import console
    from personalive.cli.progress import show_jobs

    here = str(Path.cwd())
    named = {"pipeline": pipeline, "weights": weights, "size": size, "segment_frames": segment_frames}
    defaults = {name: value for name, value in named.items() if value is not None} | parse_settings(settings)
    target = storage.resolve_uri(out, here)
    ray_settings = RayExecutorSettings(
        address=ray,
        workers=workers,
        gpus=gpus_per_worker,
        cpus=cpus_per_worker,
        cache_bytes=round(cache_gb * _BYTES_PER_GB),
    )
    chosen = BatchSettings(
        out=target,
        ray=ray_settings,
        max_attempts=max_attempts,
        retry_failed=retry_failed,
        overwrite=overwrite,
    )
    read = read_jobs([storage.resolve_uri(place, here) for place in jobs], target, defaults, pair.value)
    try:
        with show_jobs(quiet=quiet) as tell:
            result = run_batch(
                read,
                chosen,
                on_progress=tell,
                on_failure=lambda name, reason: console.print_status(
                    f"failed: {name}: {' '.join(reason.split())}"
                ),
            )
    except KeyboardInterrupt:
        console.print_status(
            "interrupted: run the same command again to continue after the last complete segments"
        )
        sys.exit(EXIT_INTERRUPTED)
    _print_summary(result, quiet=quiet)


def _print_summary(result: BatchResult, *, quiet: bool) -> None:
    from personalive.cli import console

    totals = result.totals
    if not quiet:
        earlier = f" ({result.previously_done} by an earlier run)" if result.previously_done else ""
        speed = totals.frames / totals.seconds if totals.seconds else 0.0
        for name in totals.pipelines:
            console.print_status(f"made with {name}")
        console.print_result(
            f"{totals.done} of {totals.jobs} jobs done{earlier}: {totals.frames} frames, "
            f"{speed:.1f} frames per second of work; report: {result.report}"
        )
    if totals.failed:
        many = "job" if totals.failed == 1 else "jobs"
        console.print_error(
            f"{totals.failed} {many} failed; the reasons are in {result.report}. "
            "When they are fixed, run the same command with --retry-failed."
        )
        sys.exit(_EXIT_FAILED)
