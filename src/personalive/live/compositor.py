"""A thread that puts animated frames on the canvas and hands them to all targets; the newest due frame wins."""

from __future__ import annotations

import threading
import time
from collections import deque
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
_MAX_WAITING = 32
"""Frames that may wait until they are due, where the picture is held back for its sound."""


class Compositor:
    """Composes frames on a separate thread. `mirror`, `targets` and `delay` may be replaced at any time."""

    def __init__(
        self, canvas: Canvas, *, mirror: bool, watermark: bool, on_error: Callable[[Exception], None]
    ) -> None:
        """Prepare; `on_error` is called on the thread with an unexpected error, after which nothing is composed."""
        self._canvas = canvas
        self._held = False
        self.mirror = mirror
        self.targets: tuple[Target, ...] = ()
        self.delay = 0.0
        """Seconds by which frames are later than they were due, so that they are in step with their sound."""
        self._watermark = watermark
        self._on_error = on_error
        self._frames: deque[SentFrame] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="compositor", daemon=True)
        self.replaced = 0
        """How many frames were replaced by a newer one before they were composed."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, frame: SentFrame) -> None:
        """Take a frame; it replaces one that is due already."""
        with self._changed:
            if self._held:
                return
            self._frames.append(frame)
            if len(self._frames) > _MAX_WAITING:
                self._frames.popleft()
                self.replaced += 1
            self._changed.notify()

    def hold(self) -> None:
        """Drop the frames that wait and those that follow, until `resume`: they may be of either portrait."""
        with self._changed:
            self._held = True
            self._frames.clear()

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
        """Wait for a frame that is due and return the newest one; None at the end."""
        with self._changed:
            while not self._stopping:
                delay, now = self.delay, time.monotonic()
                due = [frame for frame in self._frames if frame.due_at + delay <= now]
                if due:
                    while self._frames.popleft() is not due[-1]:
                        self.replaced += 1
                    return replace(due[-1], due_at=due[-1].due_at + delay)
                self._changed.wait(self._frames[0].due_at + delay - now if self._frames else None)
            return None
