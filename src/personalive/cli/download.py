"""`personalive download`, also installed as `download_models`: downloads the weights that a pipeline needs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli import console
from personalive.cli.error_handling import EXIT_INTERRUPTED, run
from personalive.errors import InputError, PipelineUnavailableError

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.checkpoints.download.downloader import DownloadResult
    from personalive.pipelines.diffusion.checkpoints.download.plan import DownloadPlan

EPILOG = """Examples:

download_models

download_models --dry-run

download_models --dir /data/pretrained_weights --tiny

download_models --from ~/PersonaLive/pretrained_weights

HF_ENDPOINT=https://mirror.example download_models

Without --dir the weights go into pretrained_weights in $PERSONALIVE_HOME,
or in personalive in your cache folder. A complete set is not changed, and the
hub is not asked. Run an interrupted download again to continue where it
stopped. HF_TOKEN is your token for the hub, HF_ENDPOINT a mirror.
"""


_Pipeline = Annotated[
    str,
    typer.Option(
        help="Pipeline to get weights for: personalive, or another that `personalive pipelines` lists."
    ),
]
_Directory = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Put the weights here.", show_default=False)
]
_Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="DIR",
        help="Copy weights from this folder or its pretrained_weights instead.",
    ),
]
_Tiny = Annotated[bool, typer.Option("--tiny", help="Also download the tiny autoencoder (taesd).")]
_Revisions = Annotated[
    list[str] | None,
    typer.Option(
        "--revision", metavar="REPO=REV", help="Use another revision of a repository; may be repeated."
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be downloaded, and download nothing.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def download(
    *,
    pipeline: _Pipeline = "personalive",
    directory: _Directory = None,
    source: _Source = None,
    tiny: _Tiny = False,
    revision: _Revisions = None,
    dry_run: _DryRun = False,
    quiet: _Quiet = False,
) -> None:
    """Download the weights of the personalive pipeline, or copy them from a folder.

    Every file is checked against the published size and hash, and appears only when it is complete.
    """
    from personalive.pipelines import registry

    if pipeline != registry.DIFFUSION:
        _report_other_pipeline(pipeline)
        return
    if source and (dry_run or revision):
        raise InputError("--from does not use the hub: it cannot be combined with --dry-run or --revision.")
    revisions = _parse_revisions(revision or [])
    try:
        if dry_run:
            _print_plan(_plan_download(directory, revisions, tiny=tiny, quiet=quiet))
        else:
            outcome = _run_download(directory, source, revisions, tiny=tiny, quiet=quiet)
            if not quiet:
                _print_summary(outcome)
    except KeyboardInterrupt:
        console.print_status("interrupted: run the same command again to continue")
        sys.exit(EXIT_INTERRUPTED)


def _report_other_pipeline(pipeline: str) -> None:
    """Print whether another pipeline is ready: this command does not download weights of other pipelines."""
    from personalive.pipelines import registry

    state = registry.get_pipeline(pipeline).availability()
    if not state.ready:
        raise PipelineUnavailableError(f"The {pipeline} pipeline is not ready: {state.message}")
    if pipeline == registry.FALLBACK:
        console.print_result("The preview pipeline needs no download: it is ready.")
    else:
        console.print_result(f"The {pipeline} pipeline is ready: {state.reason}.")


def _parse_revisions(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for (repository, _, wanted), text in zip(pairs, given, strict=True):
        if not (repository and wanted):
            raise typer.BadParameter(f"--revision takes REPO=REV, not {text!r}.")
    return {repository: wanted for repository, _, wanted in pairs}


def _resolve_directory(directory: Path | None) -> Path | None:
    from personalive.paths import expand_user
    from personalive.pipelines.diffusion.checkpoints import layout

    return layout.resolve_weights_dir(expand_user(directory)) if directory else None


def _plan_download(
    directory: Path | None, revisions: dict[str, str], *, tiny: bool, quiet: bool
) -> DownloadPlan:
    from personalive.cli.download_progress import show_download
    from personalive.pipelines.diffusion.checkpoints.download.downloader import plan_download

    with show_download(quiet=quiet) as progress:
        return plan_download(_resolve_directory(directory), tiny=tiny, revisions=revisions, progress=progress)


def _run_download(
    directory: Path | None, source: Path | None, revisions: dict[str, str], *, tiny: bool, quiet: bool
) -> DownloadResult:
    from personalive.cli.download_progress import show_download
    from personalive.pipelines.diffusion.checkpoints.download.downloader import (
        download_weights,
    )
    from personalive.pipelines.diffusion.checkpoints.download.local_source import copy_from_directory

    with show_download(quiet=quiet) as progress:
        if source:
            return copy_from_directory(source, _resolve_directory(directory), tiny=tiny, progress=progress)
        return download_weights(
            _resolve_directory(directory), tiny=tiny, revisions=revisions, progress=progress
        )


def _print_plan(plan: DownloadPlan) -> None:
    """Print a table of the files: which exist, and where the others come from."""
    from personalive.pipelines.diffusion.checkpoints.download.staging import format_bytes, free_space

    rows = [(name, "", "is there") for name in plan.kept]
    for item in plan.items:
        listing = item.listing
        where = f"from {listing.repository.name}@{listing.commit[:12]}: {item.published.path}"
        rows.append((item.name, format_bytes(item.published.size), where))
    width = max(len(name) for name, _, _ in rows)
    for name, size, where in rows:
        console.print_result(f"{name:<{width}}  {size:>9}  {where}", hanging=4)
    console.print_result(
        f"{plan.root}: {format_bytes(plan.size - plan.staged)} to fetch for {len(plan.items)} of {len(rows)} files"
        f"{plan.describe_later}, {format_bytes(free_space(plan.root))} free"
    )


def _print_summary(outcome: DownloadResult) -> None:
    """Print where the weights are, and what to run next."""
    from personalive.pipelines.diffusion.checkpoints import layout
    from personalive.pipelines.diffusion.checkpoints.download.staging import format_bytes

    count = len(outcome.fetched) + len(outcome.kept)
    if outcome.fetched:
        verb = "fetched" if outcome.asked else "taken over"
        console.print_result(
            f"{outcome.root}: all {count} files are there, {len(outcome.fetched)} of them {verb} now "
            f"({format_bytes(outcome.size)})"
        )
    elif outcome.checked:
        how = "checked" if outcome.asked else "no need to ask the hub"
        console.print_result(f"{outcome.root}: all {count} files are there already ({how})")
    else:
        console.print_result(
            f"{outcome.root}: all {count} files are there, but could not be checked against the hub's"
        )
    if outcome.root == layout.default_weights_dir():
        console.print_result(
            "next: personalive weights check, then personalive animate portrait.jpg talking.mp4"
        )
    else:
        console.print_result(f"next: personalive weights check {shlex.quote(str(outcome.root))}")


def main() -> None:
    """Run `download_models`."""
    application = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode="rich")
    application.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})(download)
    sys.exit(run(application, "download_models"))
