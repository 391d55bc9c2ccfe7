"""A live run: the source drives a session, whose frames go through the canvas to all targets."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

import av

from personalive.errors import InputError, PersonaLiveError
from personalive.face.crop import ImageSize
from personalive.live.audio_devices import connect_to_sound
from personalive.live.canvas import Canvas, parse_background
from personalive.live.compositor import Compositor
from personalive.live.live_display import LiveDisplay, LiveFigures
from personalive.live.live_job import LiveJob
from personalive.live.live_sound import LiveSound
from personalive.live.pipeline_host import PipelineHost
from personalive.live.portraits import LivePortrait, describe_origin, make_still, read_portraits
from personalive.live.session_keeper import SessionKeeper
from personalive.live.source_spec import parse_source
from personalive.live.sources import start_sources
from personalive.live.targets.opening import check_targets, make_target, takes_sound
from personalive.live.targets.speaker import Speaker
from personalive.live.targets.target import AudioTarget, Target, TargetError
from personalive.media import Provenance
from personalive.pipelines import registry
from personalive.pipelines.base import FrameState
from personalive.pipelines.parameters import build_parameters, split_parameters
from personalive.server.recordings.recording_manager import make_provenance
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.telemetry.session_stats import RateCounter, RecentDelays

KEYS = "p pause, r reset, n next portrait, m mirror, s sound off and on, q quit"
_FIGURES_INTERVAL_S = 0.5
_MAX_PICTURE_DELAY_S = 0.4
_DELAY_STEP_S = 0.008
"""Seconds by which the picture's delay may be wrong, so that motion does not jerk at every change."""
_SWITCH_INTERVAL_S = 0.0005
"""As in the server: no thread should wait 5 ms for the interpreter lock."""


class LiveRun:
    """One run. `run` returns when it was stopped; `stop` and `press_key` may be called meanwhile."""

    def __init__(self, job: LiveJob, display: LiveDisplay) -> None:
        """Prepare on the running event loop."""
        self._job = job
        self._display = display
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None
        self._portraits: Sequence[LivePortrait] = ()
        self._canvases: list[Canvas] = []
        self._compositor: Compositor | None = None
        self._keeper: SessionKeeper | None = None
        self._fps = RateCounter()
        self._delays = RecentDelays()
        self._has_face: bool | None = None
        self._notices: dict[str, str | None] = {"source": None, "microphone": None}
        self._sound = LiveSound(self._update_lead) if job.has_sound else None
        self._actions = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

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
        if job.has_sound and job.speaker is None and not any(map(takes_sound, job.targets)):
            raise InputError(
                "The sound would go nowhere: cameras and windows have none. Play it where the call hears it, with "
                "--speaker NAME, or leave it out."
            )
        background = await asyncio.to_thread(parse_background, job.background)
        choice = registry.choose_pipeline(job.pipeline, job.parameters)
        run_values, load_values = split_parameters(choice.pipeline, job.parameters)
        build_parameters(choice.pipeline.run_parameters, run_values)
        load_values = {"seed": job.seed, **load_values}
        checked = build_parameters(choice.pipeline.load_parameters, load_values)
        self._display.show_notice(f"running {choice.pipeline.info.name}: {choice.reason}")
        portraits, size = await asyncio.to_thread(read_portraits, job, load_values, checked)
        self._portraits = portraits
        for portrait in portraits:
            self._show_all(portrait.notes)
        canvas_size = job.canvas or size
        self._canvases = [
            Canvas(canvas_size, size, background, portrait=each.image.image, box=each.crop.box)
            for each in portraits
        ]
        provenance = describe_origin(make_provenance(choice.pipeline.info, portraits[0].sha256), portraits)
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        async with AsyncExitStack() as stack:
            await start_sources(stack, job, spec, self)
            self._compositor = await self._open_targets(stack, canvas_size, provenance)
            host = PipelineHost({**load_values, "width": size[0], "height": size[1]})
            stack.push_async_callback(host.stop)
            await host.load(choice.pipeline.info.id, self._on_loading)
            self._show_all(host.notes)
            self._keeper = SessionKeeper(
                host, portraits, self._display, self._on_frame, self._on_loading, self._sound
            )
            figures = self._loop.create_task(self._show_figures())
            stack.callback(figures.cancel)
            await self._keeper.keep(run_values)

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
                text,
                self,
                size=size,
                fps=job.fps,
                provenance=provenance,
                overwrite=job.overwrite,
                with_audio=job.has_sound,
            )
            stack.push_async_callback(self._close_target, target)
            await target.open()
            opened.append(target)
        await self._open_sound(stack, opened)
        compositor = Compositor(
            self._canvases[0], mirror=job.mirror, watermark=job.watermark, on_error=self._fail_from_thread
        )
        compositor.targets = tuple(opened)
        still = compositor.compose(make_still(self._portraits[0]))
        for target in opened:
            if target.wants_still:
                target.put(still)
        compositor.start()
        stack.callback(compositor.stop)
        return compositor

    async def _open_sound(self, stack: AsyncExitStack, targets: Sequence[Target]) -> None:
        """Open the speaker, and let sound go to all that takes it."""
        if self._sound is None:
            return
        listeners = [target.put_audio for target in targets if isinstance(target, AudioTarget)]
        if self._job.speaker is not None:
            connect_to_sound()
            speaker = Speaker(self, self._job.speaker, lambda lead: self._call(self._set_lead, lead))
            stack.push_async_callback(speaker.close)
            await speaker.open()
            listeners.append(speaker.put_audio)
        self._sound.listeners = tuple(listeners)

    async def _close_target(self, target: Target) -> None:
        written = await target.close()
        if written is not None:
            self._display.show_notice(written)

    # -- what comes in: the event loop's thread, unless it says otherwise

    def put_frame(
        self, frame: av.VideoFrame, source_time: float | None, *, arrived_at: float | None = None
    ) -> None:
        """Take a driving frame."""
        if self._keeper is not None:
            self._keeper.put_frame(frame, source_time, arrived_at=arrived_at)

    def on_sound(self, frame: av.AudioFrame, source_time: float | None) -> None:
        """Take the driver's sound. Called on any thread."""
        self._call(self._put_sound, frame, source_time)

    def _put_sound(self, frame: av.AudioFrame, source_time: float | None) -> None:
        if self._keeper is not None:
            self._keeper.put_sound(frame, source_time)

    def _set_lead(self, lead: float) -> None:
        if self._sound is not None:
            self._sound.set_lead(lead)

    def _update_lead(self) -> None:
        if self._keeper is not None:
            self._keeper.update_lead()

    def _on_frame(self, frame: SentFrame) -> None:
        if frame.state is not FrameState.TRANSITION:
            self._has_face = frame.state is FrameState.ANIMATED
        if self._compositor is not None:
            self._compositor.put(frame)

    def on_source_notice(self, notice: str | None) -> None:
        """Keep what is wrong with the source for the status line. Called on any thread."""
        self._call(self._set_notice, "source", notice)

    def on_microphone_notice(self, notice: str | None) -> None:
        """Keep what is wrong with the microphone for the status line. Called on any thread."""
        self._call(self._set_notice, "microphone", notice)

    def _set_notice(self, name: str, notice: str | None) -> None:
        before, self._notices[name] = self._notices[name], notice
        if notice is None and before is not None:
            self._display.show_notice(f"The {name} is back.")
        elif notice is not None and notice != before:
            self._display.show_notice(notice)

    # -- what targets report, on any thread: see `TargetEvents`

    def on_delivered(self, target: Target, frame: SentFrame, now: float) -> None:
        """Count a frame that was delivered; of several targets, the first one counts."""
        compositor = self._compositor
        if compositor is not None and compositor.targets[:1] == (target,):
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
        key, keeper = key.lower(), self._keeper
        if key == "q":
            self.stop()
        elif key == "m" and self._compositor is not None:
            self._compositor.mirror = not self._compositor.mirror
        elif key == "s" and self._sound is not None:
            self._sound.muted = not self._sound.muted
        elif keeper is not None:
            actions = {"p": keeper.toggle_pause, "r": keeper.reset, "n": self._show_next}
            if key in actions:
                task = self._loop.create_task(self._act(actions[key]()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _act(self, action: Coroutine[None, None, None]) -> None:
        async with self._actions:
            try:
                await action
            except PersonaLiveError as error:
                self._display.show_notice(str(error))

    async def _show_next(self) -> None:
        assert self._keeper is not None
        assert self._compositor is not None
        if len(self._portraits) == 1:
            self._display.show_notice("There is one portrait only: name more to change between them.")
            return
        self._compositor.hold()
        try:
            await self._keeper.show_next()
        finally:
            self._compositor.resume(self._canvases[self._keeper.shown])

    # -- figures

    def figures(self) -> LiveFigures:
        """Return how the run goes now, once it has a session."""
        keeper = self._keeper
        return LiveFigures(
            fps=self._fps.per_second(time.monotonic()),
            delay=self._delays.quantile(0.5),
            has_face=self._has_face,
            paused=keeper is not None and keeper.paused,
            mirrored=self._compositor is not None and self._compositor.mirror,
            portrait=self._portraits[0 if keeper is None else keeper.shown].path.name,
            source_notice=self._notices["source"] or self._notices["microphone"],
            has_sound=self._sound is not None,
            muted=self._sound is not None and self._sound.muted,
        )

    def _follow_sound(self) -> None:
        """Hold the picture back where its sound cannot be as early as it is."""
        if self._sound is None or self._keeper is None or self._compositor is None:
            return
        delay = min(max(self._keeper.sound_offset, 0.0), _MAX_PICTURE_DELAY_S)
        if abs(delay - self._compositor.delay) > _DELAY_STEP_S:
            self._compositor.delay = delay

    async def _show_figures(self) -> None:
        while True:
            self._display.show_figures(self.figures())
            self._follow_sound()
            await asyncio.sleep(_FIGURES_INTERVAL_S)
