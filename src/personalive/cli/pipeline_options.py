"""The options that say which pipeline runs and how, the same in every command that animates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personalive.cli.set_options import parse_settings

PipelineOption = Annotated[
    str,
    typer.Option(
        "--pipeline", help="auto, preview, personalive, or another that `personalive pipelines` lists."
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="DIR", help="Weights of the diffusion pipeline. Default: the downloaded ones."
    ),
]
SizeOption = Annotated[
    int, typer.Option("--size", help="Side of the animated frame: 256 to 1024, a multiple of 64.")
]
CropOption = Annotated[
    bool, typer.Option("--crop/--no-crop", help="Crop the portrait to head and shoulders.")
]
MotionOption = Annotated[
    str | None,
    typer.Option(
        "--motion",
        help="relative: changes since the first frame. absolute: pose and expression themselves.",
    ),
]
ExpressionOption = Annotated[
    float | None, typer.Option("--expression", help="Strength of the expression; 1 is unchanged.")
]
PoseOption = Annotated[
    float | None, typer.Option("--pose", help="Strength of the head's rotation; 1 is unchanged.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the pipeline's random numbers.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other parameter of the pipeline; may be repeated."),
]


def merge_parameters(settings: list[str] | None, **named: object) -> dict[str, object]:
    """Return the parameters that were given by options of their names, overridden by those of `--set`."""
    return {name: value for name, value in named.items() if value is not None} | parse_settings(settings)
