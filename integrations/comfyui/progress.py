"""Progress bars of nodes. Each report lets the user interrupt the run.

It raises ComfyUI's `InterruptProcessingException`, which ComfyUI catches.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar

_PERCENT = 100


class LoadProgress:
    """Shows the share of a pipeline's loading that is done; passed to `Pipeline.load` as its callback."""

    def __init__(self) -> None:
        self._bar = ProgressBar(_PERCENT)

    def __call__(self, stage: str, done: float) -> None:
        """Show that the share `done` of the whole, 0…1, is done."""
        del stage
        throw_exception_if_processing_interrupted()
        self._bar.update_absolute(round(done * _PERCENT))


class FrameProgress(AbstractContextManager[None]):
    """Counts frames of a known number. As a context manager, it checks for an interruption when it is entered."""

    def __init__(self, total: int) -> None:
        self._bar = ProgressBar(total)

    def __enter__(self) -> None:
        throw_exception_if_processing_interrupted()

    def __exit__(self, *exc: object) -> None:
        return None

    def advance(self, frames: int = 1) -> None:
        """Count frames that are done."""
        throw_exception_if_processing_interrupted()
        self._bar.update(frames)
