"""The option that chooses a preset of run parameters."""

from __future__ import annotations

from typing import Annotated

import typer

from personalive.pipelines.presets import preset_names

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"A set of parameters by name: {preset_names()}. Other options and --set win over it.",
    ),
]
