"""The base of all writers: an output is complete or absent, however the job ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import numpy as np

from personalive.errors import MediaError
from personalive.media.output import translate_write_errors
from personalive.media.types import Image


class VideoWriter(ABC):
    """A writer of frames of one size, (width, height), one at a time. Nothing appears at the target before `close`.

    As a context manager it closes on exit, and aborts on an exception, an interrupt included.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self._path = path
        self._size = size
        self._count = 0
        self._done = False
        self.warnings: list[str] = []

    def write(self, image: Image) -> None:
        """Add a frame, (height, width, 3) uint8 RGB of the size given on opening.

        Raises:
            MediaError: it cannot be written, for example because the disk is full. The output has been discarded.
            ValueError: the frame has another shape or type, or the output is closed; a mistake of the caller.

        """
        if self._done:
            raise ValueError("the output has been closed")
        width, height = self._size
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected ({height}, {width}, 3) uint8, got {image.shape} {image.dtype}")
        with translate_write_errors(self._path, self.abort):
            self._add(np.ascontiguousarray(image))
        self._count += 1

    def close(self) -> None:
        """Complete the output and move it to its path. Closing twice is harmless.

        Raises:
            OutputExistsError: the path was taken meanwhile, and overwriting was not asked for.
            MediaError: no frame was written, or the output cannot be completed; nothing is left behind.

        """
        if self._done:
            return
        with translate_write_errors(self._path, self.abort):
            if not self._count:
                raise MediaError(f"{self._path} was not written: there were no frames.")
            self._complete()
        self._done = True

    def abort(self) -> None:
        """Discard the output and remove what has been written. Does nothing after `close`."""
        if not self._done:
            self._done = True
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc: object) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abort()

    @abstractmethod
    def _add(self, image: Image) -> None:
        """Write frame number `_count`, from 0, whose shape and type have been checked."""

    @abstractmethod
    def _complete(self) -> None:
        """Finish the output, of at least one frame, and move it to its target."""

    @abstractmethod
    def _discard(self) -> None:
        """Close and remove what has been written. Must not raise."""
