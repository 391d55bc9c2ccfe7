"""What a run's frames and its sound come from, started."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Protocol

import av

from personalive.live.audio_devices import DEFAULT, connect_to_sound
from personalive.live.capture import CaptureThread, NewestFrame, reader_factory
from personalive.live.live_job import LiveJob
from personalive.live.microphone import MicrophoneReader
from personalive.live.source_spec import SourceKind, SourceSpec
from personalive.live.whep_source import WhepSource


class SourceEvents(Protocol):
    """Takes what sources deliver. All but the first are called on any thread."""

    def put_frame(
        self, frame: av.VideoFrame, source_time: float | None, *, arrived_at: float | None = None
    ) -> None:
        """Take a frame, captured at `source_time` of the source's clock, on the event loop."""

    def on_sound(self, frame: av.AudioFrame, source_time: float | None) -> None:
        """Take sound, captured at `source_time` of the same clock."""

    def on_source_notice(self, notice: str | None) -> None:
        """Take a sentence on what is wrong with the source, or None once it delivers again."""

    def on_microphone_notice(self, notice: str | None) -> None:
        """Take the same of the microphone."""


async def start_sources(stack: AsyncExitStack, job: LiveJob, spec: SourceSpec, events: SourceEvents) -> None:
    """Start the job's source, and its microphone if it has one; `stack` stops them.

    Raises `PersonaLiveError` where one cannot be used.
    """
    microphone = job.microphone
    if job.sound and microphone is None and spec.kind is SourceKind.CAMERA:
        microphone = DEFAULT
    on_sound = events.on_sound if job.has_sound and microphone is None else None
    source: CaptureThread[av.VideoFrame] | WhepSource
    if spec.kind is SourceKind.WHEP:
        source = WhepSource(spec.value, events.put_frame, events.on_source_notice, on_sound)
    else:
        # A camera's clock is not its microphone's: what arrives together counts as captured together.
        timed = spec.kind is not SourceKind.CAMERA

        def put(frame: av.VideoFrame, arrived_at: float) -> None:
            events.put_frame(frame, frame.time if timed else None, arrived_at=arrived_at)

        opened = reader_factory(spec, job.rotate, on_sound)
        source = CaptureThread(spec.name, opened, NewestFrame(put).put, events.on_source_notice)
    stack.push_async_callback(source.stop)
    await source.start()
    if microphone is not None:
        connect_to_sound()
        await _start_microphone(stack, microphone, events)


async def _start_microphone(stack: AsyncExitStack, wanted: str, events: SourceEvents) -> None:
    capture = CaptureThread(
        f"microphone {wanted}",
        lambda stopping: MicrophoneReader(wanted, stopping),
        lambda frame: events.on_sound(frame, None),
        events.on_microphone_notice,
    )
    stack.push_async_callback(capture.stop)
    await capture.start()
