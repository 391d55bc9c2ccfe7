"""Frames that are still arriving from the pipeline's process."""

from __future__ import annotations

from concurrent.futures import Future

from personalive.media.types import Frames
from personalive.pipelines.base import AnimatedChunk
from personalive.server.process import messages


class PendingChunk(AnimatedChunk):
    """A chunk whose frames may still be arriving: `images` waits for them.

    `images` raises `PipelineLostError` if the process ended before they arrived.
    """

    __slots__ = ("_pending_images",)
    _pending_images: Future[Frames]

    def __init__(self, images: Future[Frames], stepped: messages.StepResult) -> None:
        # The base is frozen: its fields are set as its own constructor sets them.
        for name, value in (
            ("_pending_images", images),
            ("times", stepped.times),
            ("states", stepped.states),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "seconds", stepped.seconds)

    @property
    def images(self) -> Frames:
        """The frames, once they have arrived."""
        return self._pending_images.result()
