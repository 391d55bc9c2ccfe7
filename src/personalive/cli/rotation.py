"""The angles that `--rotate` takes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from personalive.media import Rotation


class Rotate(StrEnum):
    """How far a picture is turned clockwise."""

    AUTO = "auto"
    NOT = "0"
    RIGHT = "90"
    OVER = "180"
    LEFT = "270"

    @property
    def degrees(self) -> Rotation:
        """The same as a job takes it."""
        return "auto" if self is Rotate.AUTO else int(self.value)


DrivingRotation = Annotated[
    Rotate,
    typer.Option("--rotate", help="Turn the driving clip clockwise; auto: so that its face stands upright."),
]
ReferenceRotation = Annotated[
    Rotate,
    typer.Option(
        "--rotate-reference", help="Turn the portrait clockwise; auto: so that its face stands upright."
    ),
]
