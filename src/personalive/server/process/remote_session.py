"""A session whose pipeline lives in another process."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from personalive.errors import PipelineLostError
from personalive.media.types import Image
from personalive.pipelines.base import AnimatedChunk, FrameChunk, Reference, RunParameters, Session
from personalive.server.process import messages

if TYPE_CHECKING:
    from personalive.server.process.remote_pipeline import RemotePipeline


class RemoteSession(Session[Any]):
    """A session in the pipeline's process."""

    def __init__(self, owner: RemotePipeline, number: int, opened: messages.Opened) -> None:
        self.number = number
        self.counted: dict[str, float] = {}
        """What `figures` gives: the pipeline's counts at the last step."""
        self.looked_until = -math.inf if opened.looks else math.inf
        """What `prepared_until` gives."""
        self._owner = owner
        self._parameters = opened.parameters
        self._sent: set[float] = set()
        self._stepped_until = -math.inf
        self._sending = threading.Lock()
        self._closed = False

    @property
    @override
    def parameters(self) -> Any:
        return self._parameters

    @override
    def prepare(self, image: Image, time: float) -> None:
        with self._sending:
            # Else its step was asked for meanwhile: that has the frame or does without it.
            if time > self._stepped_until:
                self._send(image, time)

    def _send(self, image: Image, time: float) -> None:
        if time not in self._sent:
            self._sent.add(time)
            self._owner.connection.tell(messages.Prepare(self.number, image, time))

    @property
    @override
    def prepared_until(self) -> float:
        return self.looked_until

    @override
    def discard(self, time: float) -> None:
        with self._sending:
            if time in self._sent:
                self._sent.remove(time)
                self._owner.connection.tell(messages.Discard(self.number, time))

    def send(self, chunk: FrameChunk) -> tuple[float, ...]:
        """Send the frames of a chunk that were not prepared; return the times of all.

        The process keeps none of them, nor any before them, after the step that is asked for next.
        """
        times = tuple(chunk.times.tolist())
        with self._sending:
            for image, time in zip(chunk.images, times, strict=True):
                self._send(image, time)
            self._sent = {time for time in self._sent if time > times[-1]}
            self._stepped_until = times[-1]
        return times

    @override
    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        return self._owner.step_many([self], [chunk])[0]

    @override
    def flush(self) -> AnimatedChunk | None:
        flushed: AnimatedChunk | None = self._call("flush")
        return flushed

    @override
    def update(self, parameters: RunParameters) -> None:
        self._call("update", parameters)
        self._parameters = parameters

    @override
    def switch_reference(self, reference: Reference) -> None:
        own = self._owner.own_reference(reference)
        self._owner.call(messages.SwitchReference(self.number, own.number))

    @override
    def reset(self) -> None:
        self._call("reset")

    @override
    def snapshot(self) -> bytes | None:
        snapshot: bytes | None = self._call("snapshot")
        return snapshot

    @override
    def restore(self, snapshot: bytes) -> None:
        self._call("restore", snapshot)

    @override
    def figures(self) -> Mapping[str, float]:
        return self.counted

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(PipelineLostError):  # and the session with it
                self._call("close")

    def _call(self, method: str, *arguments: object) -> Any:
        return self._owner.call(messages.CallSession(self.number, method, arguments))
