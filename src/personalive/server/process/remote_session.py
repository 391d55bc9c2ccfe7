"""A session whose pipeline lives in another process."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from typing_extensions import override

from personalive.errors import PipelineLostError
from personalive.media.types import Image
from personalive.pipelines.base import AnimatedChunk, FrameChunk, Reference, RunParameters, Session
from personalive.server.process import messages
from personalive.server.process.connection import ProcessConnection


class SessionOwner(Protocol):
    """The part of the pipeline that a session needs."""

    connection: ProcessConnection

    def call(self, message: Any) -> Any:
        """Send a message, and return the answer of the pipeline's process."""

    def require_reference(self, reference: Reference) -> Any:
        """Return the reference with its `number`. Raises `InputError` for one of another pipeline."""

    def step_many(self, sessions: Sequence[Any], chunks: Sequence[FrameChunk]) -> list[AnimatedChunk]:
        """Step several sessions in one call."""


class RemoteSession(Session[Any]):
    """A session in the pipeline's process."""

    def __init__(self, owner: SessionOwner, number: int, opened: messages.OpenedSession) -> None:
        self.number = number
        self.last_figures: dict[str, float] = {}
        """The result of `stats`: the pipeline's figures at the last step."""
        self.last_prepared_time = -math.inf if opened.prepares_frames else math.inf
        """The result of `prepared_until`."""
        self._owner = owner
        self._parameters = opened.parameters
        self._sent: set[float] = set()
        self._last_stepped_time = -math.inf
        self._send_lock = threading.Lock()
        self._closed = False

    @property
    @override
    def parameters(self) -> Any:
        return self._parameters

    @override
    def prepare(self, image: Image, time: float) -> None:
        with self._send_lock:
            # Otherwise its step was submitted meanwhile, with or without the frame.
            if time > self._last_stepped_time:
                self._send_frame(image, time)

    def _send_frame(self, image: Image, time: float) -> None:
        if time not in self._sent:
            self._sent.add(time)
            self._owner.connection.notify(messages.PrepareFrame(self.number, image, time))

    @property
    @override
    def prepared_until(self) -> float:
        return self.last_prepared_time

    @override
    def discard(self, time: float) -> None:
        with self._send_lock:
            if time in self._sent:
                self._sent.remove(time)
                self._owner.connection.notify(messages.DiscardFrame(self.number, time))

    def send_chunk(self, chunk: FrameChunk) -> tuple[float, ...]:
        """Send the frames of a chunk that were not prepared; return the times of all.

        After the next step the process keeps neither these frames nor earlier ones.
        """
        times = tuple(chunk.times.tolist())
        with self._send_lock:
            for image, time in zip(chunk.images, times, strict=True):
                self._send_frame(image, time)
            self._sent = {time for time in self._sent if time > times[-1]}
            self._last_stepped_time = times[-1]
        return times

    @override
    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        return self._owner.step_many([self], [chunk])[0]

    @override
    def flush(self) -> AnimatedChunk | None:
        flushed: AnimatedChunk | None = self._call_remote("flush")
        return flushed

    @override
    def update(self, parameters: RunParameters) -> None:
        self._call_remote("update", parameters)
        self._parameters = parameters

    @override
    def switch_reference(self, reference: Reference) -> None:
        own = self._owner.require_reference(reference)
        self._owner.call(messages.SwitchReference(self.number, own.number))

    @override
    def reset(self) -> None:
        self._call_remote("reset")

    @override
    def snapshot(self) -> bytes | None:
        snapshot: bytes | None = self._call_remote("snapshot")
        return snapshot

    @override
    def restore(self, snapshot: bytes) -> None:
        self._call_remote("restore", snapshot)

    @override
    def stats(self) -> Mapping[str, float]:
        return self.last_figures

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(PipelineLostError):  # the session is gone too
                self._call_remote("close")

    def _call_remote(self, method: str, *arguments: object) -> Any:
        return self._owner.call(messages.CallSession(self.number, method, arguments))
