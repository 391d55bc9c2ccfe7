"""The angles that `--rotate` takes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from personalive.media import Rotation


class RotateOption(StrEnum):
    """How far a picture is turned clockwise."""

    AUTO = "auto"
    NONE = "0"
    CLOCKWISE_90 = "90"
    CLOCKWISE_180 = "180"
    CLOCKWISE_270 = "270"

    @property
    def rotation(self) -> Rotation:
        """The value as a job takes it."""
        return "auto" if self is RotateOption.AUTO else int(self.value)


DrivingRotation = Annotated[
    RotateOption,
    typer.Option("--rotate", help="Turn the driving clip clockwise; auto: so that its face is upright."),
]
ReferenceRotation = Annotated[
    RotateOption,
    typer.Option(
        "--rotate-reference", help="Turn the portrait clockwise; auto: so that its face is upright."
    ),
]
