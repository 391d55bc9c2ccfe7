"""One live session: driving frames in, animated frames out, and what may be changed while it runs.

Frames arrive and are sent on the event loop; the pipeline's session is used on the worker's thread, which steps it.
Between the two, a converter thread converts arriving frames to images, and animated images to frames for encoders.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec

import av
import numpy as np

from personalive.errors import PersonaLiveError, PipelineLostError
from personalive.media.frame_shape import describe_shape_problem
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.base import (
    AnimatedChunk,
    FrameChunk,
    FrameState,
    PipelineInfo,
    Reference,
    RunParameters,
    Session,
)
from personalive.pipelines.parameters import build_run_parameters
from personalive.server.sessions.delay import CapturedFrame, StepTiming
from personalive.server.sessions.frame_queue import FrameQueue, QueuedFrame, SourceClock, to_image
from personalive.server.sessions.listeners import Listeners
from personalive.server.sessions.memory import release_memory
from personalive.server.sessions.playout_buffer import (
    NO_PLANES,
    FrameCallback,
    PlayoutBuffer,
    PlayoutFrame,
    SentFrame,
    to_planes,
)
from personalive.server.sessions.session_audio import SessionAudio
from personalive.server.sessions.watermark import add_watermark
from personalive.server.sessions.worker import PipelineWorker
from personalive.server.telemetry import logs
from personalive.server.telemetry.metrics import Metrics
from personalive.server.telemetry.session_stats import SessionStats

P = ParamSpec("P")
Message = dict[str, Any]
"""A message to the client, as JSON."""

PIPELINE_LOST = "pipeline_lost"
"""The reason with which sessions end when their pipeline's process ends; a new offer will be answered soon."""
RESTARTING_MESSAGE = "It is started again."
_MAX_CAPTURED = 256
_REPEAT_INTERVAL_S = 1.0
"""Seconds after which a session without new frames repeats its last one: players close a stream that is silent."""


class ServerSession:
    """A live session. `SessionManager.open` makes it on the event loop; call `end` there too."""

    def __init__(
        self,
        id: str,
        pipeline_session: Session[Any],
        pipeline_info: PipelineInfo,
        reference_id: str,
        *,
        worker: PipelineWorker,
        metrics: Metrics,
        watermark: bool = False,
    ) -> None:
        self.id = id
        self.pipeline_session = pipeline_session
        self.pipeline_info = pipeline_info
        self.reference_id = reference_id
        self.frame_stats = SessionStats()
        self.opened_at, self.opened_monotonic = time.time(), time.monotonic()
        self.last_frame_at = time.monotonic()
        self.paused = False
        self.ended = False
        self.end_reason: str | None = None
        self.makes_planes = True
        """Whether frames come with planes for encoders. Without them, `SentFrame.planes` is empty."""
        self._failed = False
        self._rejection_sent = False
        self.on_end: list[Callable[[ServerSession], Awaitable[None]]] = []
        self.worker = worker
        self._converter = worker.converter
        self._metrics = metrics
        self._watermark = watermark
        self._loop = asyncio.get_running_loop()
        self._clock = SourceClock()
        # A pipeline that takes any number of frames gets each as it arrives: waiting for more would add delay.
        chunk = pipeline_info.chunk_frames if pipeline_info.exact_chunks else 1
        self._chunk_frames = chunk
        self._frame_queue = FrameQueue(chunk)
        # Room for a chunk that is being sent, the next one, and a frame to absorb jitter.
        self._playout = PlayoutBuffer(2 * chunk + 1, self._on_sent)
        self.audio = SessionAudio(self._playout.get_lag)
        self._captured: OrderedDict[float, CapturedFrame] = OrderedDict()
        self._listeners: Listeners[Message] = Listeners()
        self._state = "waiting_for_face"
        self._seen_dropped = (0, 0)
        self._stats_task = self._loop.create_task(self._send_stats_periodically(), name="stream-figures")
        worker.add(self)

    # -- frames in: the event loop's thread

    def put_frame(
        self, frame: av.VideoFrame, source_time: float | None = None, *, arrived_at: float | None = None
    ) -> None:
        """Take a driving frame that has arrived, now or at the time `arrived_at` of `time.monotonic`.

        `source_time` is when it was captured, by the clock by which the source tells that of its sound too.
        """
        now = time.monotonic() if arrived_at is None else arrived_at
        self.last_frame_at = now
        self.frame_stats.fps_in.count(now)
        self.frame_stats.frames_in += 1
        self._metrics.frames_in.inc()
        if self.paused or self.ended:
            return
        if reason := describe_shape_problem(frame.width, frame.height):
            self._reject_frame(frame, reason)
            return
        at_source = None if frame.time is None else float(frame.time)
        arrived = QueuedFrame(frame, self._clock.read(at_source, now), now)
        self.audio.note_frame(arrived.time, source_time, now)
        self._frame_queue.put(arrived)
        self._run_on_converter(self._prepare_next)

    def _reject_frame(self, frame: av.VideoFrame, reason: str) -> None:
        """Drop a frame of a shape that cannot be used; the client gets one message about it."""
        self._frame_queue.count_dropped()
        if not self._rejection_sent:
            self._rejection_sent = True
            size = f"{frame.width}×{frame.height}"
            self.send_message(
                {"type": "error", "message": f"Frames of {size} pixels are left out: {reason}."}
            )
            logs.event("frames_rejected", session=self.id, size=size)

    # -- the pipeline: the worker's thread

    def is_ready(self) -> bool:
        """Whether there is a chunk to step."""
        return self._frame_queue.has_chunk and not self.paused

    def take_chunk(self) -> FrameChunk | None:
        """Take the next chunk, or return None if there is none."""
        now = time.monotonic()
        arrived = self._frame_queue.pop_chunk(now, self.pipeline_session.prepared_until)
        if arrived is None:
            return None
        for frame in arrived:
            self._captured[frame.time] = CapturedFrame(frame.arrived_at, now)
        while len(self._captured) > _MAX_CAPTURED:
            self._captured.popitem(last=False)
        self._metrics.queue_seconds.observe(now - arrived[-1].arrived_at)
        images = [frame.image for frame in arrived if frame.image is not None]
        return FrameChunk(images, np.array([frame.time for frame in arrived], np.float64))

    def on_result(
        self, driving: FrameChunk, animated: AnimatedChunk, seconds: float, batch_size: int
    ) -> None:
        """Send the frames that a step made."""
        # Usually as many come out as go in; then the output has the input's pace, during transitions too.
        even = len(animated) == len(driving)
        due = driving.times if even else animated.times
        trails = [
            None if state is FrameState.TRANSITION else float(later - at)
            for later, at, state in zip(due, animated.times, animated.states, strict=True)
        ]
        captured = [
            None if state is FrameState.TRANSITION else self._captured.get(float(at))
            for at, state in zip(animated.times, animated.states, strict=True)
        ]
        now = time.monotonic()
        step = StepTiming(
            seconds, started_at=now - seconds, ended_at=now, figures=dict(self.pipeline_session.stats())
        )
        self._metrics.chunk_seconds.observe(seconds)
        self._metrics.chunk_sessions.observe(batch_size)
        self._run_on_converter(self._encode_frames, animated, due.tolist(), trails, captured, step)

    def on_error(self, error: Exception) -> None:
        """End the session because of an error, and tell its client why."""
        if self.ended or self._failed:
            return
        self._failed = True
        if isinstance(error, PipelineLostError):
            kind, message = PIPELINE_LOST, f"{error} {RESTARTING_MESSAGE}"
        elif isinstance(error, PersonaLiveError):
            kind, message = "input", str(error)
        elif is_out_of_memory(error):
            kind, message = "out_of_memory", "The GPU ran out of memory; this session was ended to free it."
        else:
            kind, message = "defect", "The session ended because of an error in the server; see its log."
        self._metrics.errors.labels(kind).inc()
        logs.event("session_failed", session=self.id, error=f"{type(error).__name__}: {error}", kind=kind)
        asyncio.run_coroutine_threadsafe(self.end(kind, message), self._loop)

    # -- pictures and frames: the converter's thread

    def _run_on_converter(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(RuntimeError):  # the server is stopping, and so is this session
            self._converter.submit(self._run_guarded, lambda: work(*args, **kwargs))

    def _run_guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.on_error(error)

    def _prepare_next(self) -> None:
        """Convert the oldest unprepared frame to an image, and let the pipeline's session prepare it."""
        for gone in self._frame_queue.pop_discarded():
            self.pipeline_session.discard(gone)
        arrived = self._frame_queue.next_unprepared()
        if arrived is None or self.ended:
            return
        image = to_image(arrived.frame)
        self.pipeline_session.prepare(image, arrived.time)
        if not self._frame_queue.set_prepared(arrived, image, time.monotonic()):
            self.pipeline_session.discard(arrived.time)
        if self._frame_queue.has_chunk:
            self.worker.wake()

    def _encode_frames(
        self,
        animated: AnimatedChunk,
        due: list[float],
        trails: list[float | None],
        captured: list[CapturedFrame | None],
        step: StepTiming,
    ) -> None:
        frames = []
        made = zip(animated.images, animated.states, due, trails, captured, strict=True)
        for image, state, at, trail, came in made:
            shown = add_watermark(image) if self._watermark else image
            planes = to_planes(shown) if self.makes_planes else NO_PLANES
            parts = (
                None if came is None else came.delay_parts(step, trails=self.pipeline_info.delay_frames > 0)
            )
            frames.append(
                PlayoutFrame(
                    shown, planes, at, state, None if came is None else came.arrived_at, parts, trail
                )
            )
        self._loop.call_soon_threadsafe(self._on_encoded, frames, step)

    async def _discard_pending(self) -> None:
        """Drop the animated frames that are not sent yet, including those that the converter still has."""
        with contextlib.suppress(RuntimeError):
            await self._loop.run_in_executor(self._converter, int)
        self._playout.clear()

    # -- what the client may change: the event loop's thread

    @property
    def state(self) -> str:
        """The state that is reported to the client: waiting_for_face, streaming or paused."""
        return "paused" if self.paused else self._state

    @property
    def silent_for_s(self) -> float:
        """Seconds since the last driving frame, or since the session was opened."""
        return time.monotonic() - self.last_frame_at

    async def set_paused(self, paused: bool) -> None:
        """Pause or continue. While paused, no frames are taken: the picture stands still and sound is silent."""
        self.paused = self.audio.paused = paused
        self._frame_queue.clear()
        self._send_state()

    async def reset(self) -> None:
        """Forget the driver: the next frames are treated as the first."""
        self._frame_queue.clear()
        await self.worker.call(self.pipeline_session.reset)
        await self._discard_pending()

    async def update_parameters(self, values: Mapping[str, object]) -> RunParameters:
        """Change run parameters from the next chunk on, and return them all.

        Parameters that `values` does not name stay. Raises `InputError` for invalid ones.
        """
        now = self.pipeline_session.parameters
        checked: RunParameters = build_run_parameters(type(now), values, now)
        await self.worker.call(self.pipeline_session.update, checked)
        return checked

    async def switch_reference(self, reference_id: str, reference: Reference) -> None:
        """Animate another reference from the next chunk on."""
        await self.worker.call(self.pipeline_session.switch_reference, reference)
        self.reference_id = reference_id
        await self._discard_pending()

    # -- frames and messages out: the event loop's thread

    def add_frame_listener(self, listener: FrameCallback) -> Callable[[], None]:
        """Call `listener` with the last frame and every later one. Returns a function that ends that."""
        return self._playout.add_listener(listener)

    @property
    def last_sent(self) -> SentFrame | None:
        """The frame that was sent last, None before the first."""
        return self._playout.last

    def add_message_listener(self, listener: Callable[[Message], None]) -> Callable[[], None]:
        """Call `listener` with every message for the client. Returns a function that ends that."""
        forget = self._listeners.add(listener)
        listener({"type": "state", "state": self.state})
        return forget

    def send_message(self, message: Message) -> None:
        """Send a message to all listeners."""
        self._listeners.notify(message)

    def stats(self) -> Message:
        """Return the session's figures, as the client gets them each second."""
        now, figures = time.monotonic(), self.frame_stats

        def milliseconds(share: float) -> float | None:
            delay = figures.delays.quantile(share)
            return None if delay is None else round(1000 * delay, 1)

        return {
            "type": "stats",
            "fps_in": round(figures.fps_in.per_second(now), 2),
            "fps_out": round(figures.fps_out.per_second(now), 2),
            "latency_ms": {"p50": milliseconds(0.5), "p95": milliseconds(0.95)},
            "delay_ms": {
                name: None if part is None else round(1000 * part, 1)
                for name, part in figures.delays.medians().items()
            },
            "chunk_frames": self._chunk_frames,
            "chunk_ms": round(1000 * figures.chunk_seconds, 1),
            "queue_in": len(self._frame_queue),
            "queue_out": len(self._playout),
            "dropped_in": self._frame_queue.dropped,
            "dropped_out": self._playout.dropped,
            "frames_in": figures.frames_in,
            "frames_out": figures.frames_out,
            "frames_without_face": figures.frames_without_face,
            "keyframes": int(figures.pipeline_figures.get("keyframes", 0)),
            "audio": self.audio.stats(),
        }

    async def end(self, reason: str, message: str | None = None) -> None:
        """End the session: stop it, tell the client, and free its resources. It may be called twice."""
        if self.ended:
            return
        self.ended, self.end_reason = True, reason
        self.worker.remove(self)
        self._stats_task.cancel()
        stopped: Message = {"type": "stream_stopped"}
        if message is not None:
            stopped["error_message"] = message
        if reason == PIPELINE_LOST:
            stopped["retry"] = True
        self.send_message(stopped)
        for finish in self.on_end:
            await finish(self)
        self.audio.close()
        await self._playout.close()
        self._listeners.clear()
        self._frame_queue.clear()
        await self.worker.call(self.pipeline_session.close)
        if reason == "out_of_memory":
            await self.worker.call(release_memory)
        self._metrics.sessions_ended.labels(reason).inc()
        logs.event("session_ended", session=self.id, reason=reason, frames=self.frame_stats.frames_out)

    # -- within

    def _on_encoded(self, frames: list[PlayoutFrame], step: StepTiming) -> None:
        if self.ended:
            return
        self.frame_stats.chunk_seconds = step.seconds
        self.frame_stats.pipeline_figures = step.figures
        faceless = sum(frame.state in {FrameState.HELD, FrameState.WAITING} for frame in frames)
        if faceless:
            self.frame_stats.frames_without_face += faceless
            self._metrics.frames_without_face.inc(faceless)
        if frames:
            waiting = frames[-1].state is FrameState.WAITING
            self._set_state("waiting_for_face" if waiting else "streaming")
        self._playout.push(frames)

    def _on_sent(self, frame: PlayoutFrame, now: float) -> None:
        self.frame_stats.fps_out.count(now)
        self.frame_stats.frames_out += 1
        self._metrics.frames_out.inc()
        if frame.captured_at is not None and frame.delay_parts is not None:
            delay = now - frame.captured_at
            self.frame_stats.delays.add(
                frame.delay_parts | {"send": delay - sum(frame.delay_parts.values())}, now
            )
            self._metrics.latency_seconds.observe(delay)

    def _set_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._send_state()

    def _send_state(self) -> None:
        self.send_message({"type": "state", "state": self.state})

    async def _send_stats_periodically(self) -> None:
        while True:
            sent = self.frame_stats.frames_out
            await asyncio.sleep(_REPEAT_INTERVAL_S)
            self.send_message(self.stats())
            self._count_dropped()
            if self.frame_stats.frames_out == sent:
                self._playout.repeat_last()

    def _count_dropped(self) -> None:
        before, self._seen_dropped = self._seen_dropped, (self._frame_queue.dropped, self._playout.dropped)
        for name, old, new in zip(("in", "out"), before, self._seen_dropped, strict=True):
            if new > old:
                self._metrics.frames_dropped.labels(name).inc(new - old)
