"""A thread that puts animated frames on the canvas and hands them to all targets; the newest frame wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from personalive.live.canvas import Canvas
from personalive.live.targets.target import Target
from personalive.media import Image
from personalive.server.sessions.playout_buffer import SentFrame, to_planes
from personalive.server.sessions.watermark import add_watermark

_STOP_TIMEOUT_S = 3.0


class Compositor:
    """Composes frames on a separate thread. `mirror` and `targets` may be replaced at any time."""

    def __init__(
        self, canvas: Canvas, *, mirror: bool, watermark: bool, on_error: Callable[[Exception], None]
    ) -> None:
        """Prepare; `on_error` is called on the thread with an unexpected error, after which nothing is composed."""
        self._canvas = canvas
        self._held = False
        self.mirror = mirror
        self.targets: tuple[Target, ...] = ()
        self._watermark = watermark
        self._on_error = on_error
        self._frame: SentFrame | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="compositor", daemon=True)
        self.replaced = 0
        """How many frames were replaced by a newer one before they were composed."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, frame: SentFrame) -> None:
        """Take a frame; it replaces one that waits."""
        with self._changed:
            if self._held:
                return
            self.replaced += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def hold(self) -> None:
        """Drop the frame that waits and those that follow, until `resume`: they may be of either portrait."""
        with self._changed:
            self._held, self._frame = True, None

    def resume(self, canvas: Canvas) -> None:
        """Compose the frames from now on, on this canvas."""
        with self._changed:
            self._held, self._canvas = False, canvas

    def stop(self) -> None:
        """Stop after the current frame."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    def compose(self, frame: SentFrame) -> SentFrame:
        """Return the frame as it goes out: on the canvas, mirrored and marked where that is wanted."""
        image: Image = self._canvas.compose(frame.image)
        if self.mirror:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        if self._watermark:
            image = add_watermark(image)
        return replace(frame, image=image, planes=to_planes(image))

    def _run(self) -> None:
        try:
            while (frame := self._next_frame()) is not None:
                composed = self.compose(frame)
                for target in self.targets:
                    target.put(composed)
        except Exception as error:
            self._on_error(error)

    def _next_frame(self) -> SentFrame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._stopping)
            frame, self._frame = self._frame, None
            return None if self._stopping else frame
