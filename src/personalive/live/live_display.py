"""How a live run goes, and whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """How a run goes. `delay` is the median from a driving frame's arrival to its delivery, in seconds.

    `has_face` is None before the first frame. `source_notice` says what is wrong with the source, if anything is.
    """

    fps: float
    delay: float | None
    has_face: bool | None
    paused: bool
    mirrored: bool
    portrait: str
    source_notice: str | None
    has_sound: bool = False
    muted: bool = False


class LiveDisplay(Protocol):
    """Shows how a run goes. Its methods are called on the event loop."""

    def show_figures(self, figures: LiveFigures) -> None:
        """Show the figures, which come twice a second."""

    def show_notice(self, notice: str) -> None:
        """Show a sentence once."""
