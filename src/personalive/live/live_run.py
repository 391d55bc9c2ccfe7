"""A live run: the source drives a session, whose frames go through the canvas to all targets."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import av
import numpy as np

from personalive.errors import PersonaLiveError
from personalive.face.crop import ImageSize
from personalive.live.canvas import Canvas, parse_background
from personalive.live.capture import CaptureThread, NewestFrame, reader_factory
from personalive.live.compositor import Compositor
from personalive.live.live_job import LiveJob
from personalive.live.pipeline_host import PipelineHost
from personalive.live.portraits import LivePortrait, read_portraits
from personalive.live.source_spec import SourceKind, SourceSpec, parse_source
from personalive.live.targets.opening import check_targets, make_target
from personalive.live.targets.target import Target, TargetError
from personalive.live.whep_source import WhepSource
from personalive.media import Provenance
from personalive.pipelines import registry
from personalive.pipelines.base import FrameState
from personalive.pipelines.parameters import build_parameters, split_parameters
from personalive.server.recordings.recording_manager import make_provenance
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session import Message, ServerSession
from personalive.server.telemetry.session_stats import DelayStats, RateCounter

KEYS = "p pause, r reset, n next portrait, m mirror, q quit"
_FIGURES_INTERVAL_S = 0.5
_SWITCH_INTERVAL_S = 0.0005
"""As in the server: no thread should wait 5 ms for the interpreter lock."""
_REOPEN_DELAY_S = 1.0
_MAX_SHORT_SESSIONS = 3
_SHORT_SESSION_S = 10.0
"""Seconds before which a session's end counts as a failure. After `_MAX_SHORT_SESSIONS` in a row the run ends."""


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """How a run goes. `delay` is the median from a driving frame's arrival to its delivery, in seconds.

    `has_face` is None before the first frame. `source_notice` says what is wrong with the source, if anything is.
    """

    fps: float
    delay: float | None
    has_face: bool | None
    paused: bool
    mirrored: bool
    portrait: str
    source_notice: str | None


class LiveDisplay(Protocol):
    """Shows how a run goes. Its methods are called on the event loop."""

    def show_figures(self, figures: LiveFigures) -> None:
        """Show the figures, which come twice a second."""

    def show_notice(self, notice: str) -> None:
        """Show a sentence once."""


class LiveRun:
    """One run. `run` returns when it was stopped; `stop` and `press_key` may be called meanwhile."""

    def __init__(self, job: LiveJob, display: LiveDisplay) -> None:
        """Prepare on the running event loop."""
        self._job = job
        self._display = display
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._failure: PersonaLiveError | Exception | None = None
        self._portraits: list[LivePortrait] = []
        self._canvases: list[Canvas] = []
        self._shown = 0
        self._session: ServerSession | None = None
        self._paused = False
        self._fps = RateCounter()
        self._delays = DelayStats()
        self._has_face: bool | None = None
        self._source_notice: str | None = None
        self._session_problem: str | None = None
        self._actions = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._compositor: Compositor | None = None
        self._host: PipelineHost | None = None

    # -- the run

    async def run(self) -> None:
        """Run until `stop`. Raises `PersonaLiveError` for what cannot be used, or fails for good."""
        work = self._loop.create_task(self._run(), name="live")
        stopping = self._loop.create_task(self._stopping.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin to end the run: files are completed, connections closed."""
        self._stopping.set()

    async def _run(self) -> None:
        job = self._job
        job.check()
        spec = parse_source(job.source)
        check_targets(job.targets)
        background = await asyncio.to_thread(parse_background, job.background)
        choice = registry.choose_pipeline(job.pipeline, job.parameters)
        run_values, load_values = split_parameters(choice.pipeline, job.parameters)
        build_parameters(choice.pipeline.run_parameters, run_values)
        checked = build_parameters(choice.pipeline.load_parameters, {"seed": job.seed, **load_values})
        self._display.show_notice(f"running {choice.pipeline.info.name}: {choice.reason}")
        portraits, size = await asyncio.to_thread(read_portraits, job, load_values, checked)
        self._portraits = list(portraits)
        for portrait in portraits:
            self._show_all(portrait.notes)
        canvas_size = job.canvas or size
        self._canvases = [
            Canvas(canvas_size, size, background, portrait=each.image.image, box=each.crop.box)
            for each in portraits
        ]
        provenance = make_provenance(choice.pipeline.info, portraits[0].sha256)
        provenance = _add_references(provenance, self._portraits[1:])
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        async with AsyncExitStack() as stack:
            await self._start_source(stack, spec)
            self._compositor = await self._open_targets(stack, canvas_size, provenance)
            self._host = PipelineHost({**load_values, "seed": job.seed, "width": size[0], "height": size[1]})
            stack.push_async_callback(self._host.stop)
            await self._host.load(choice.pipeline.info.id, self._on_loading)
            self._show_all(self._host.notes)
            figures = self._loop.create_task(self._show_figures())
            stack.callback(figures.cancel)
            await self._keep_session(run_values)

    def _show_all(self, notices: tuple[str, ...]) -> None:
        for notice in notices:
            self._display.show_notice(notice)

    def _on_loading(self) -> None:
        self._display.show_notice("loading the pipeline …")

    async def _open_targets(
        self, stack: AsyncExitStack, size: ImageSize, provenance: Provenance
    ) -> Compositor:
        job = self._job
        opened = []
        for text in job.targets:
            target = make_target(
                text, self, size=size, fps=job.fps, provenance=provenance, overwrite=job.overwrite
            )
            stack.push_async_callback(self._close_target, target)
            await target.open()
            opened.append(target)
        compositor = Compositor(
            self._canvases[0], mirror=job.mirror, watermark=job.watermark, on_error=self._fail_from_thread
        )
        compositor.targets = tuple(opened)
        still = compositor.compose(_make_still(self._portraits[0]))
        for target in opened:
            if target.wants_still:
                target.put(still)
        compositor.start()
        stack.callback(compositor.stop)
        return compositor

    async def _close_target(self, target: Target) -> None:
        written = await target.close()
        if written is not None:
            self._display.show_notice(written)

    async def _start_source(self, stack: AsyncExitStack, spec: SourceSpec) -> None:
        source: CaptureThread | WhepSource
        if spec.kind is SourceKind.WHEP:
            source = WhepSource(spec.value, self._put_frame, self._on_source_notice)
        else:
            opened = reader_factory(spec, self._job.rotate)
            source = CaptureThread(
                spec.name, opened, NewestFrame(self._put_frame).put, self._on_source_notice
            )
        stack.push_async_callback(source.stop)
        await source.start()

    async def _keep_session(self, values: Mapping[str, object]) -> None:
        """Open a session, and another one when it ends. Raises `PersonaLiveError` where that does not help."""
        assert self._host is not None
        short = 0
        while True:
            await self._host.wait_until_ready(self._on_loading)
            opened_at = time.monotonic()
            self._session_problem = None
            try:
                await self._run_session(self._host, values)
            except PersonaLiveError as error:
                self._session_problem = str(error)
            problem = self._session_problem or "The session has ended."
            short = short + 1 if time.monotonic() - opened_at < _SHORT_SESSION_S else 0
            if short >= _MAX_SHORT_SESSIONS:
                raise PersonaLiveError(problem)
            self._display.show_notice(problem)
            await asyncio.sleep(_REOPEN_DELAY_S)

    async def _run_session(self, host: PipelineHost, values: Mapping[str, object]) -> None:
        ended = asyncio.Event()

        async def on_end(session: ServerSession) -> None:
            del session
            self._session = None
            ended.set()

        session = await host.open_session(self._portraits[self._shown], values)
        session.on_end.append(on_end)
        session.add_message_listener(self._on_message)
        session.add_frame_listener(self._on_frame)
        if self._paused:
            await session.set_paused(True)
        self._session = session
        await ended.wait()

    # -- what comes in: the event loop's thread, unless it says otherwise

    def _put_frame(self, frame: av.VideoFrame, arrived_at: float | None = None) -> None:
        if self._session is not None:
            self._session.put_frame(frame, arrived_at)

    def _on_frame(self, frame: SentFrame) -> None:
        if frame.state is not FrameState.TRANSITION:
            self._has_face = frame.state is FrameState.ANIMATED
        if self._compositor is not None:
            self._compositor.put(frame)

    def _on_message(self, message: Message) -> None:
        if message["type"] == "stream_stopped":
            self._session_problem = message.get("error_message")
        elif message["type"] == "error":
            self._display.show_notice(str(message["message"]))

    def _on_source_notice(self, notice: str | None) -> None:
        """Keep what is wrong with the source for the status line. Called on any thread."""
        self._call(self._set_source_notice, notice)

    def _set_source_notice(self, notice: str | None) -> None:
        if notice is None and self._source_notice is not None:
            self._display.show_notice("The source is back.")
        elif notice is not None and notice != self._source_notice:
            self._display.show_notice(notice)
        self._source_notice = notice

    # -- what targets report, on any thread: see `TargetEvents`

    def on_delivered(self, frame: SentFrame, now: float) -> None:
        """Count a frame that was delivered; only the first target counts."""
        self._call(self._count, frame.captured_at, now)

    def on_target_end(self, target: Target, problem: str | None) -> None:
        """Go on without the target; end the run if it was the last."""
        self._call(self._remove_target, target, problem)

    def on_notice(self, notice: str) -> None:
        """Show a sentence."""
        self._call(self._display.show_notice, notice)

    def on_key(self, key: str) -> None:
        """Act on a key that was pressed in a window."""
        self._call(self.press_key, key)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *args)

    def _count(self, captured_at: float | None, now: float) -> None:
        self._fps.count(now)
        if captured_at is not None:
            self._delays.add(now - captured_at, now)

    def _remove_target(self, target: Target, problem: str | None) -> None:
        compositor = self._compositor
        if compositor is None or target not in compositor.targets:
            return
        compositor.targets = tuple(other for other in compositor.targets if other is not target)
        if compositor.targets:
            if problem is not None:
                self._display.show_notice(problem)
            return
        if problem is not None:
            self._failure = TargetError(problem)
        self.stop()

    def _fail_from_thread(self, error: Exception) -> None:
        self._call(self._fail, error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self.stop()

    # -- keys

    def press_key(self, key: str) -> None:
        """Act on a key; other keys than those of `KEYS` do nothing."""
        if key in {"q", "Q"}:
            self.stop()
            return
        action = {
            "p": self._toggle_pause,
            "r": self._reset,
            "n": self._show_next,
            "m": self._toggle_mirror,
        }.get(key.lower())
        if action is not None:
            task = self._loop.create_task(self._act(action()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _act(self, action: Coroutine[None, None, None]) -> None:
        async with self._actions:
            try:
                await action
            except PersonaLiveError as error:
                self._display.show_notice(str(error))

    async def _toggle_pause(self) -> None:
        self._paused = not self._paused
        if self._session is not None:
            await self._session.set_paused(self._paused)

    async def _reset(self) -> None:
        if self._session is not None:
            await self._session.reset()

    async def _show_next(self) -> None:
        if len(self._portraits) == 1:
            self._display.show_notice("There is one portrait only: name more to change between them.")
            return
        number = (self._shown + 1) % len(self._portraits)
        portrait = self._portraits[number]
        session = self._session
        if session is not None and self._host is not None:
            reference = await self._host.fuse(portrait)
            await session.switch_reference(str(portrait.path), reference)
        self._shown = number
        if self._compositor is not None:
            self._compositor.canvas = self._canvases[number]

    async def _toggle_mirror(self) -> None:
        if self._compositor is not None:
            self._compositor.mirror = not self._compositor.mirror

    # -- figures

    def figures(self) -> LiveFigures:
        """Return how the run goes now."""
        return LiveFigures(
            fps=self._fps.per_second(time.monotonic()),
            delay=self._delays.quantile(0.5),
            has_face=self._has_face,
            paused=self._paused,
            mirrored=self._compositor is not None and self._compositor.mirror,
            portrait=self._portraits[self._shown].path.name,
            source_notice=self._source_notice,
        )

    async def _show_figures(self) -> None:
        while True:
            self._display.show_figures(self.figures())
            await asyncio.sleep(_FIGURES_INTERVAL_S)


def _make_still(portrait: LivePortrait) -> SentFrame:
    """Return the portrait as a frame, for targets to show before the first one is animated."""
    image = portrait.crop.image
    return SentFrame(image, np.empty((0, 0), np.uint8), 0.0, FrameState.WAITING)


def _add_references(provenance: Provenance, others: list[LivePortrait]) -> Provenance:
    """Record the other portraits that may be shown, too."""
    if not others:
        return provenance
    return replace(provenance, extra={"other_references_sha256": " ".join(one.sha256 for one in others)})
