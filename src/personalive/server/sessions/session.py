"""One live session: driving frames in, animated frames out, and what may be changed while it runs.

Frames come and go on the event loop; the pipeline's session is touched on the worker's thread only. Between the two
a converter's thread makes pictures of what came and frames for encoders of what goes, while the worker steps on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec

import av
import cv2
import numpy as np

from personalive.errors import PersonaLiveError, PipelineLostError
from personalive.media.frame_shape import objection
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
from personalive.pipelines.parameters import build
from personalive.server.sessions.delay import CapturedFrame, StepTiming
from personalive.server.sessions.frame_queue import Arrived, Intake, SourceClock, to_image
from personalive.server.sessions.memory import give_back_memory
from personalive.server.sessions.playout_buffer import OutFrame, Outlet, SentFrame, Sink
from personalive.server.sessions.watermark import stamp
from personalive.server.sessions.worker import Worker
from personalive.server.telemetry import logs
from personalive.server.telemetry.metrics import Metrics
from personalive.server.telemetry.session_stats import Figures

P = ParamSpec("P")
Message = dict[str, Any]
"""What is told to the client, as JSON."""

LOST = "pipeline_lost"
"""The reason of sessions that end with their pipeline's process; a new offer will be answered soon."""
RESTARTING = "It is started again."
_CAPTURED_KEPT = 256
_REPEAT_S = 1.0
"""A stream that stands still shows its last frame so often: players give up on one that sends nothing."""


class Stream:
    """Made by `Streams.open`, on the event loop. `end` it there too."""

    def __init__(
        self,
        id: str,
        session: Session[Any],
        info: PipelineInfo,
        reference_id: str,
        *,
        worker: Worker,
        metrics: Metrics,
        watermark: bool = False,
    ) -> None:
        self.id = id
        self.session = session
        self.info = info
        self.reference_id = reference_id
        self.figures = Figures()
        self.opened_at = time.time()
        self.last_frame_at = time.monotonic()
        self.paused = False
        self.ended = False
        self._failed = False
        self._refused = False
        self.on_end: list[Callable[[Stream], Awaitable[None]]] = []
        self.worker = worker
        self._converter = worker.converter
        self._metrics = metrics
        self._watermark = watermark
        self._loop = asyncio.get_running_loop()
        self._clock = SourceClock()
        # A pipeline that takes any number of frames gets each as it comes: waiting for more is delay.
        chunk = info.chunk_frames if info.exact_chunks else 1
        self._chunk_frames = chunk
        self._intake = Intake(chunk)
        # A chunk that is being shown, the next one, and a frame to even out their coming.
        self._outlet = Outlet(2 * chunk + 1, self._sent)
        self._captured: OrderedDict[float, CapturedFrame] = OrderedDict()
        self._listeners: list[Callable[[Message], None]] = []
        self._state = "waiting_for_face"
        self._seen_dropped = (0, 0)
        self._beat = self._loop.create_task(self._tell_every_second(), name="stream-figures")
        worker.add(self)

    # -- frames in: the event loop's thread

    def put(self, frame: av.VideoFrame) -> None:
        """A driving frame came."""
        now = time.monotonic()
        self.last_frame_at = now
        self.figures.fps_in.count(now)
        self.figures.frames_in += 1
        self._metrics.frames_in(1)
        if self.paused or self.ended:
            return
        if reason := objection(frame.width, frame.height):
            self._refuse(frame, reason)
            return
        at_source = None if frame.time is None else float(frame.time)
        arrived = Arrived(frame, self._clock.read(at_source, now), now)
        self._intake.put(arrived)
        self._convert(self._prepare_next)

    def _refuse(self, frame: av.VideoFrame, reason: str) -> None:
        """Drop a frame of a shape that cannot be used; the client hears of it once."""
        self._intake.count_dropped()
        if not self._refused:
            self._refused = True
            size = f"{frame.width}×{frame.height}"
            self.tell({"type": "error", "message": f"Frames of {size} pixels are left out: {reason}."})
            logs.event("frames_refused", session=self.id, size=size)

    # -- the pipeline: the worker's thread

    def ready(self) -> bool:
        """Whether there is a chunk to step."""
        return self._intake.ready and not self.paused

    def take(self) -> FrameChunk | None:
        """The next chunk."""
        now = time.monotonic()
        arrived = self._intake.take(now, self.session.prepared_until)
        if arrived is None:
            return None
        for frame in arrived:
            self._captured[frame.time] = CapturedFrame(frame.at, now)
        while len(self._captured) > _CAPTURED_KEPT:
            self._captured.popitem(last=False)
        self._metrics.queued(now - arrived[-1].at)
        images = [frame.image for frame in arrived if frame.image is not None]
        return FrameChunk(images, np.array([frame.time for frame in arrived], np.float64))

    def give(self, driving: FrameChunk, animated: AnimatedChunk, seconds: float, together: int) -> None:
        """Send what a step made."""
        # As many out as in is the rule; then the input's own pace is the output's, through transitions too.
        even = len(animated) == len(driving)
        due = driving.times if even else animated.times
        captured = [
            None if state is FrameState.TRANSITION else self._captured.get(float(at))
            for at, state in zip(animated.times, animated.states, strict=True)
        ]
        now = time.monotonic()
        step = StepTiming(seconds, begun=now - seconds, ended=now, figures=dict(self.session.figures()))
        self._metrics.chunk(seconds, together)
        self._convert(self._pack, animated, due.tolist(), captured, step)

    def fail(self, error: Exception) -> None:
        """The session broke down: end it, and tell its client why."""
        if self.ended or self._failed:
            return
        self._failed = True
        if isinstance(error, PipelineLostError):
            kind, message = LOST, f"{error} {RESTARTING}"
        elif isinstance(error, PersonaLiveError):
            kind, message = "input", str(error)
        elif is_out_of_memory(error):
            kind, message = "out_of_memory", "The GPU ran out of memory; this session was ended to free it."
        else:
            kind, message = "defect", "The session broke down by an error of the server's; see its log."
        self._metrics.error(kind)
        logs.event("session_failed", session=self.id, error=f"{type(error).__name__}: {error}", kind=kind)
        asyncio.run_coroutine_threadsafe(self.end(kind, message), self._loop)

    # -- pictures and frames: the converter's thread

    def _convert(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(RuntimeError):  # the server stops, and so does this session
            self._converter.submit(self._guarded, lambda: work(*args, **kwargs))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.fail(error)

    def _prepare_next(self) -> None:
        """Make a picture of the oldest frame that has none, and let the session look at it."""
        for gone in self._intake.pop_discarded():
            self.session.discard(gone)
        arrived = self._intake.next_unprepared()
        if arrived is None or self.ended:
            return
        image = to_image(arrived.frame)
        self.session.prepare(image, arrived.time)
        if not self._intake.set_prepared(arrived, image, time.monotonic()):
            self.session.discard(arrived.time)
        if self._intake.ready:
            self.worker.wake()

    def _pack(
        self,
        animated: AnimatedChunk,
        due: list[float],
        captured: list[CapturedFrame | None],
        step: StepTiming,
    ) -> None:
        frames = []
        for image, state, at, came in zip(animated.images, animated.states, due, captured, strict=True):
            shown = stamp(image) if self._watermark else image
            planes = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2YUV_I420), np.uint8)
            parts = None if came is None else came.parts(step, trails=self.info.delay_frames > 0)
            frames.append(OutFrame(shown, planes, at, state, None if came is None else came.at, parts))
        self._loop.call_soon_threadsafe(self._made, frames, step)

    async def _forget_made(self) -> None:
        """Drop what was made and is not sent yet, also what the converter still has."""
        with contextlib.suppress(RuntimeError):
            await self._loop.run_in_executor(self._converter, int)
        self._outlet.clear()

    # -- what the client may change: the event loop's thread

    @property
    def state(self) -> str:
        """What the client is told: waiting_for_face, streaming or paused."""
        return "paused" if self.paused else self._state

    @property
    def silence(self) -> float:
        """Seconds since the last driving frame, or since the beginning."""
        return time.monotonic() - self.last_frame_at

    async def pause(self, paused: bool) -> None:
        """Take no frames until it is unpaused; the picture stands still meanwhile."""
        self.paused = paused
        self._intake.clear()
        self._tell_state()

    async def reset(self) -> None:
        """Forget the driver: the next frames are as the first."""
        self._intake.clear()
        await self.worker.call(self.session.reset)
        await self._forget_made()

    async def update(self, given: Mapping[str, object]) -> RunParameters:
        """Change run parameters from the next chunk on; those not named stay. Raises `InputError`."""
        now = self.session.parameters
        checked: RunParameters = build(type(now), {**now.model_dump(), **given})
        await self.worker.call(self.session.update, checked)
        return checked

    async def switch(self, reference_id: str, reference: Reference) -> None:
        """Animate another reference from the next chunk on."""
        await self.worker.call(self.session.switch_reference, reference)
        self.reference_id = reference_id
        await self._forget_made()

    # -- frames and messages out: the event loop's thread

    def subscribe(self, sink: Sink) -> Callable[[], None]:
        """Call `sink` with every frame as it is sent. Returns what ends that."""
        return self._outlet.subscribe(sink)

    @property
    def last_sent(self) -> SentFrame | None:
        """The frame that was sent last, None before the first."""
        return self._outlet.last

    def listen(self, listener: Callable[[Message], None]) -> Callable[[], None]:
        """Call `listener` with every message for the client. Returns what ends that."""
        self._listeners.append(listener)
        listener({"type": "state", "state": self.state})

        def forget() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return forget

    def tell(self, message: Message) -> None:
        """Send a message to whoever listens."""
        for listener in list(self._listeners):
            listener(message)

    def stats(self) -> Message:
        """The session's figures, as the client gets them each second."""
        now, figures = time.monotonic(), self.figures

        def milliseconds(share: float) -> float | None:
            delay = figures.delays.quantile(share)
            return None if delay is None else round(1000 * delay, 1)

        return {
            "type": "stats",
            "fps_in": round(figures.fps_in.read(now), 2),
            "fps_out": round(figures.fps_out.read(now), 2),
            "latency_ms": {"p50": milliseconds(0.5), "p95": milliseconds(0.95)},
            "delay_ms": {
                name: None if part is None else round(1000 * part, 1)
                for name, part in figures.parts.medians().items()
            },
            "chunk_frames": self._chunk_frames,
            "chunk_ms": round(1000 * figures.chunk_seconds, 1),
            "queue_in": len(self._intake),
            "queue_out": len(self._outlet),
            "dropped_in": self._intake.dropped,
            "dropped_out": self._outlet.dropped,
            "frames_in": figures.frames_in,
            "frames_out": figures.frames_out,
            "frames_without_face": figures.frames_without_face,
            "keyframes": int(figures.own.get("keyframes", 0)),
        }

    async def end(self, reason: str, message: str | None = None) -> None:
        """Stop, tell the client, close what belongs to it. May be called twice."""
        if self.ended:
            return
        self.ended = True
        self.worker.remove(self)
        self._beat.cancel()
        stopped: Message = {"type": "stream_stopped"}
        if message is not None:
            stopped["error_message"] = message
        if reason == LOST:
            stopped["retry"] = True
        self.tell(stopped)
        for finish in self.on_end:
            await finish(self)
        await self._outlet.close()
        self._listeners.clear()
        self._intake.clear()
        await self.worker.call(self.session.close)
        if reason == "out_of_memory":
            await self.worker.call(give_back_memory)
        self._metrics.session_ended(reason)
        logs.event("session_ended", session=self.id, reason=reason, frames=self.figures.frames_out)

    # -- within

    def _made(self, frames: list[OutFrame], step: StepTiming) -> None:
        if self.ended:
            return
        self.figures.chunk_seconds = step.seconds
        self.figures.own = step.figures
        faceless = sum(frame.state in {FrameState.HELD, FrameState.WAITING} for frame in frames)
        if faceless:
            self.figures.frames_without_face += faceless
            self._metrics.no_face(faceless)
        if frames:
            waiting = frames[-1].state is FrameState.WAITING
            self._change_state("waiting_for_face" if waiting else "streaming")
        self._outlet.give(frames)

    def _sent(self, frame: OutFrame, now: float) -> None:
        self.figures.fps_out.count(now)
        self.figures.frames_out += 1
        self._metrics.frames_out(1)
        if frame.captured is not None and frame.parts is not None:
            delay = now - frame.captured
            self.figures.delays.add(delay, now)
            self.figures.parts.add(frame.parts | {"send": delay - sum(frame.parts.values())}, now)
            self._metrics.latency(delay)

    def _change_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._tell_state()

    def _tell_state(self) -> None:
        self.tell({"type": "state", "state": self.state})

    async def _tell_every_second(self) -> None:
        while True:
            sent = self.figures.frames_out
            await asyncio.sleep(_REPEAT_S)
            self.tell(self.stats())
            self._count_dropped()
            if self.figures.frames_out == sent:
                self._outlet.repeat()

    def _count_dropped(self) -> None:
        before, self._seen_dropped = self._seen_dropped, (self._intake.dropped, self._outlet.dropped)
        for name, old, new in zip(("in", "out"), before, self._seen_dropped, strict=True):
            if new > old:
                self._metrics.dropped(name, new - old)
