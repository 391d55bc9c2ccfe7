"""`download_models`: says what there is to download, which in this version is nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from personalive.errors import PipelineUnavailableError

_TRUTH = (
    "The preview pipeline needs no download; released weights come with the personalive pipeline, "
    "which is not part of this version."
)

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def download(
    *,
    pipeline: Annotated[str, typer.Option(help="The pipeline whose weights are wanted.")] = "preview",
) -> None:
    """Download what a pipeline needs.

    The preview pipeline needs no download; released weights come with the personalive pipeline, which is not
    part of this version.
    """
    from personalive.pipelines import registry

    if pipeline == registry.DIFFUSION and pipeline not in registry.names():
        raise PipelineUnavailableError(f"There are no weights to download. {_TRUTH}")
    state = registry.get(pipeline).availability()
    if not state.ready:
        remedy = f" {state.remedy}" if state.remedy else ""
        raise PipelineUnavailableError(f"The {pipeline} pipeline is not ready: {state.reason}{remedy}")
    typer.echo(
        _TRUTH if pipeline == registry.FALLBACK else f"The {pipeline} pipeline is ready: {state.reason}."
    )


def main() -> None:
    """Run `download_models`."""
    import sys

    from personalive.cli.app import run

    sys.exit(run(app, "download_models"))
